/** Makes elements. Text always becomes text nodes, so nothing that a user typed is read as HTML. */

/**
 * Return a new element.
 *
 * `options` holds attributes; `on` maps events to listeners, `style` maps custom properties to
 * values (set through the CSSOM, which the page's content security policy allows), `text` is the
 * content. An attribute that is null, undefined or false is left out; true stands for "".
 */
export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  const { on = {}, style = {}, text, ...attributes } = options;
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, String(value));
  if (text !== undefined) element.textContent = text;
  element.append(...present(children));
  return element;
}

/** Replace what an element holds; null and undefined children are left out. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined);
}

/** Return the element with this id; a missing one is a mistake of the page. */
export function find(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no element #${id}`);
  return element;
}

/** Return a button with its listener. */
export function button(label, onClick, options = {}) {
  return make("button", { type: "button", on: { click: onClick }, ...options, text: label });
}

/** Return a labelled field: a short word and its control. */
export function field(label, control) {
  return make("label", { class: "field" }, make("span", { text: label }), control);
}

/** Return a box that scrolls sideways; the keyboard can scroll it, so it needs a name. */
export function scrollBox(label, ...children) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, ...children);
}

/** Return radio buttons that look like one switch. `choices` maps values to labels. */
export function makeSwitch(legend, name, choices, chosen, onChange) {
  const labels = Object.entries(choices).map(([value, label]) =>
    make("label", {},
      make("input", {
        type: "radio", name, value, checked: value === chosen,
        on: { change: () => onChange(value) },
      }),
      make("span", { text: label })));
  return make("fieldset", { class: "switch" },
    make("legend", { class: "visually-hidden", text: legend }), labels);
}
