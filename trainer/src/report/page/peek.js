const peek = document.getElementById("peek"), sheet = document.getElementById("sheet");
const columns = Number(peek.dataset.columns), rows = Number(peek.dataset.rows);
document.querySelectorAll(".map circle").forEach(point => point.addEventListener("pointerenter", () => {
  const i = Number(point.dataset.i), picture = peek.firstElementChild;
  picture.style.background = `url(${sheet.src}) ${-120 * (i % columns)}px ${-120 * Math.floor(i / columns)}px / ${120 * columns}px ${120 * rows}px`;
  peek.lastElementChild.textContent = point.firstElementChild.textContent;
  peek.hidden = false;
}));
