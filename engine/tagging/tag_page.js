"use strict";
// One script element holds what is true of all photos; one a photo holds its scores and maps, and its thumbnail's
// address as an attribute, which is read when the photo is shown.
const run = JSON.parse(document.getElementById("run").textContent);
const photos = Array.from(document.querySelectorAll("script.photo"), (element, row) => ({
  ...JSON.parse(element.textContent), element, row }));
const AT_ONCE = 60;
// Folders that all names begin with are not shown.
const inCommon = photos.map(photo => photo.name.slice(0, photo.name.lastIndexOf("/") + 1)).reduce((common, folder) => {
  while (!folder.startsWith(common)) common = common.slice(0, common.lastIndexOf("/", common.length - 2) + 1);
  return common;
}, photos.length ? photos[0].name.slice(0, photos[0].name.lastIndexOf("/") + 1) : "").length;
const [list, filters, order, runners, status, more] =
  ["photos", "filters", "order", "runners", "status", "more"].map(id => document.getElementById(id));
const NO_TAG = -1;
const chosen = new Set();
let matching = [];
let shown = 0;

function make(kind, properties, ...children) {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  return element;
}

const tagsOf = photo => photo.scores.filter(score => score.tag);

function matches(photo) {
  const tags = tagsOf(photo);
  return Array.from(chosen).every(wanted =>
    wanted === NO_TAG ? !tags.length : tags.some(score => score.class === wanted));
}

// What photos are ordered by: the least score of the chosen tags, or the best score of all classes.
function confidence(photo) {
  const scores = photo.scores.filter(score => chosen.has(score.class)).map(score => score.score);
  return scores.length ? Math.min(...scores) : photo.scores[0].score;
}

function update() {
  matching = photos.filter(matches);
  const sign = { high: -1, low: 1, name: 0 }[order.value];
  matching.sort(sign ? (a, b) => sign * (confidence(a) - confidence(b)) || a.row - b.row
                     : (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  list.replaceChildren();
  shown = 0;
  showMore();
  const names = Array.from(chosen, row => row === NO_TAG ? "no tag" : run.classes[row]);
  const count = matching.length.toLocaleString("en");
  status.textContent = names.length
    ? `${count} of ${photos.length.toLocaleString("en")} photos with ${names.join(" and ")}`
    : `${count} photo${matching.length === 1 ? "" : "s"}`;
}

function showMore() {
  list.append(...matching.slice(shown, shown + AT_ONCE).map(card));
  shown = Math.min(shown + AT_ONCE, matching.length);
  more.hidden = shown === matching.length;
}

function card(photo) {
  const [width, height] = photo.size;
  const tags = tagsOf(photo);
  const described = tags.length ? "tags: " + tags.map(score => run.classes[score.class]).join(", ") : "no tag";
  const image = make("img", { src: photo.element.dataset.thumbnail, alt: `${photo.name}, ${described}`, width, height });
  const view = make("div", { className: "view" }, image);
  view.style.aspectRatio = `${width} / ${height}`;
  view.style.width = `${Math.min(1, width / height / (4 / 3)) * 100}%`;
  const chips = make("div", { className: "chips" });
  if (!tags.length) chips.append(make("span", { className: "none", textContent: "no tag" }));
  for (const score of photo.scores) {
    if (score.tag || runners.checked) chips.append(chip(photo, score, view));
  }
  const name = make("a", { className: "name", href: photo.address, textContent: photo.name.slice(inCommon), title: photo.name });
  return make("li", { className: "photo" }, make("div", { className: "frame" }, view),
              make("div", { className: "about" }, name, chips));
}

function chip(photo, score, view) {
  const name = run.classes[score.class];
  const button = make("button", { type: "button", className: `chip ${score.tag ? "hit" : "missed"}`,
                                  textContent: `${name} ${score.score.toFixed(2)}` });
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `${name}, score ${score.score.toFixed(2)}: where in the photo`);
  const draw = () => drawMap(photo, score, view);
  const settle = () => {  // back to the map that was clicked, if any
    const kept = view.closest(".photo").querySelector(".chip[aria-pressed=true]");
    clearMap(view);
    if (kept) kept.redraw();
  };
  button.redraw = draw;
  button.addEventListener("pointerenter", event => { if (event.pointerType !== "touch") draw(); });
  button.addEventListener("pointerleave", event => { if (event.pointerType !== "touch") settle(); });
  button.addEventListener("focus", draw);
  button.addEventListener("blur", settle);
  button.addEventListener("click", () => {
    const press = button.getAttribute("aria-pressed") !== "true";
    for (const other of button.parentElement.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(press));
    clearMap(view);
    if (press) draw();
  });
  return button;
}

function drawMap(photo, score, view) {
  clearMap(view);
  const [rows, columns] = photo.grid;
  const values = Uint8Array.from(atob(score.map), letter => letter.charCodeAt(0));
  const canvas = make("canvas", { width: columns, height: rows });
  canvas.setAttribute("aria-hidden", "true");
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  values.forEach((value, place) => pixels.data.set([...run.colours[value], 255], 4 * place));
  context.putImageData(pixels, 0, 0);
  view.append(canvas);
  view.classList.add("mapped");
}

function clearMap(view) {
  view.querySelector("canvas")?.remove();
  view.classList.remove("mapped");
}

function filterButton(row, name, count) {
  const button = make("button", { type: "button", textContent: `${name} ` },
                      make("span", { textContent: count.toLocaleString("en") }));
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    if (!chosen.delete(row)) chosen.add(row);
    button.setAttribute("aria-pressed", String(chosen.has(row)));
    update();
  });
  return button;
}

const counts = run.classes.map((_, row) => photos.filter(photo => tagsOf(photo).some(tag => tag.class === row)).length);
const present = run.classes.map((_, row) => row).filter(row => counts[row]).sort((a, b) => counts[b] - counts[a]);
filters.append(...present.map(row => filterButton(row, run.classes[row], counts[row])));
const untagged = photos.filter(photo => !tagsOf(photo).length).length;
if (untagged) filters.append(filterButton(NO_TAG, "no tag", untagged));
document.querySelector(".controls").hidden = false;

if (run.unreadable.length) {
  const part = document.getElementById("unreadable");
  part.querySelector("summary").textContent = `${run.unreadable.length.toLocaleString("en")} files cannot be read`;
  part.querySelector("ul").append(...run.unreadable.map(reason => make("li", { textContent: reason })));
  part.hidden = false;
}

order.addEventListener("change", update);
runners.addEventListener("change", update);
more.addEventListener("click", () => {
  const next = list.children.length;
  showMore();
  list.children[next].querySelector("a").focus();
});
document.addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  for (const button of list.querySelectorAll(".chip[aria-pressed=true]")) button.setAttribute("aria-pressed", "false");
  list.querySelectorAll(".view.mapped").forEach(clearMap);
});
update();
