package program;

import java.time.Duration;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.Authentication;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.client.OAuth2AuthorizeRequest;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientProviderBuilder;
import org.springframework.security.oauth2.client.annotation.RegisteredOAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.oidc.web.logout.OidcClientInitiatedLogoutSuccessHandler;
import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;
import org.springframework.security.oauth2.client.web.DefaultOAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.web.OAuth2AuthorizedClientRepository;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestClient;

import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;

/**
 * A web application that calls an API on behalf of the person at the browser.
 *
 * The property `issuer-uri` makes Spring call `ClientRegistrations.fromIssuerLocation`.
 */
@SpringBootApplication
@RestController
public class Application {
    private final String api;
    private final OAuth2AuthorizedClientRepository kept;
    private final DefaultOAuth2AuthorizedClientManager refreshing;

    Application(
            @Value("${api}") String api,
            ClientRegistrationRepository registrations,
            OAuth2AuthorizedClientRepository kept) {
        this.api = api;
        this.kept = kept;
        this.refreshing = new DefaultOAuth2AuthorizedClientManager(registrations, kept);
        // Every access token counts as expired, so that each use refreshes it.
        this.refreshing.setAuthorizedClientProvider(OAuth2AuthorizedClientProviderBuilder.builder()
                .refreshToken(options -> options.clockSkew(Duration.ofDays(1)))
                .build());
    }

    public static void main(String[] arguments) {
        SpringApplication.run(Application.class, arguments);
    }

    @Bean
    @ConditionalOnProperty(name = "sign-in", havingValue = "false", matchIfMissing = true)
    static SecurityFilterChain chain(HttpSecurity http) throws Exception {
        return http.authorizeHttpRequests(requests -> requests.anyRequest().permitAll())
                .oauth2Client(Customizer.withDefaults())
                .build();
    }

    /** The application signs people in and out (OpenID Connect), and is told when they signed out elsewhere. */
    @Bean
    @ConditionalOnProperty(name = "sign-in", havingValue = "true")
    static SecurityFilterChain signingIn(HttpSecurity http, ClientRegistrationRepository registrations)
            throws Exception {
        var signedOut = new OidcClientInitiatedLogoutSuccessHandler(registrations);
        signedOut.setPostLogoutRedirectUri("{baseUrl}/ready");
        return http.authorizeHttpRequests(requests ->
                        requests.requestMatchers("/ready").permitAll().anyRequest().authenticated())
                .oauth2Login(Customizer.withDefaults())
                .oidcLogout(logout -> logout.backChannel(Customizer.withDefaults()))
                .logout(logout -> logout.logoutSuccessHandler(signedOut))
                .build();
    }

    /** What the ID token and UserInfo say of the person. */
    @GetMapping("/me")
    Map<String, Object> me(@AuthenticationPrincipal OidcUser person) {
        return person.getClaims();
    }

    @GetMapping("/ready")
    String ready() {
        return "ready";
    }

    /** What the API says; Spring sends the browser to the authorization server when it has no token yet. */
    @GetMapping("/")
    String call(@RegisteredOAuth2AuthorizedClient("authserver") OAuth2AuthorizedClient client) {
        return this.call(client.getAccessToken().getTokenValue());
    }

    /** The same with a refreshed token. */
    @GetMapping("/refreshed")
    String callRefreshed(
            Authentication person, HttpServletRequest request, HttpServletResponse response) {
        var client = this.kept.loadAuthorizedClient("authserver", person, request);
        var asked = OAuth2AuthorizeRequest.withAuthorizedClient(client)
                .principal("anonymousUser")
                .attribute(HttpServletRequest.class.getName(), request)
                .attribute(HttpServletResponse.class.getName(), response)
                .build();
        return this.call(this.refreshing.authorize(asked).getAccessToken().getTokenValue());
    }

    private String call(String token) {
        return RestClient.create()
                .get()
                .uri(this.api)
                .headers(headers -> headers.setBearerAuth(token))
                .retrieve()
                .body(String.class);
    }
}
