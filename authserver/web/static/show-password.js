// Lets people see the password that they type. Without this script the button stays hidden.
"use strict";

const button = document.getElementById("show-password");
const field = document.getElementById(button.getAttribute("aria-controls"));

function show(visible) {
  field.type = visible ? "text" : "password";
  button.setAttribute("aria-pressed", String(visible));
}

button.addEventListener("click", () => show(field.type === "password"));
// Sent or left, the field is one for passwords again: browsers remember what is typed into others.
field.form.addEventListener("submit", () => show(false));
window.addEventListener("pagehide", () => show(false));
button.hidden = false;
