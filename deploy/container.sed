# What the image changes in production.ini: these come from the environment, and the log is JSON.
s|^authserver\.trusted_proxies = .*|authserver.trusted_proxies = env:AUTHSERVER_TRUSTED_PROXIES|
s|^# \(authserver\.plugin\.rate_limits\.storage = \).*|\1env:AUTHSERVER_LIMITS_STORAGE|
s|^    # metrics$|    metrics|
s|^# \(authserver\.plugin\.metrics\.tokens = \)|\1|
s|^formatter = line$|formatter = json|
