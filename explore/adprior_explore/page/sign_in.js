/** Asks the person for the page's token, once for all requests that wait for it. */

import { find } from "./dom.js";

let asked = null;

/** Return a promise of a token; `reason` is why the one before was refused, or null. */
export function askForToken(reason) {
  asked ??= new Promise((resolve) => open(reason, resolve)).finally(() => {
    asked = null;
  });
  return asked;
}

function open(reason, resolve) {
  const dialog = find("sign-in");
  const form = dialog.querySelector("form");
  const input = find("token");
  if (reason !== null) find("sign-in-reason").textContent = reason;
  dialog.oncancel = (event) => event.preventDefault();
  form.onsubmit = (event) => {
    event.preventDefault();
    const token = input.value;
    input.value = "";
    dialog.close();
    resolve(token);
  };
  dialog.showModal();
}
