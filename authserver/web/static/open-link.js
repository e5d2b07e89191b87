// Takes the link out of the address of its page, and sends it on in the form. Without this script people paste it there.
"use strict";

const field = document.getElementById("link");
const fragment = window.location.hash.slice(1);

if (fragment) {
  field.value = fragment;
  // It stays neither in the address bar nor in the history.
  window.history.replaceState(null, "", window.location.pathname);
  field.form.requestSubmit();
}
