// Sends the response to the application at once; without it the person presses the button.
document.querySelector("form").submit();
