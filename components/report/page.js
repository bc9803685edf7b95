// Reads out the logged step under the pointer. Everything it says is on the page without it.
(() => {
  const place = document.getElementById("training-data");
  const readout = document.getElementById("training-readout");
  if (!place || !readout) return;
  const data = JSON.parse(place.textContent);
  const last = data.steps.length - 1;
  const say = (row) => {
    const parts = ["step " + data.steps[row].toLocaleString("en-US")];
    data.names.forEach((name, i) => {
      if (data.values[row][i] !== null) parts.push(name + " " + data.values[row][i]);
    });
    readout.textContent = parts.join(" · ");
  };
  const nearest = (step) => {
    let low = 0, high = last;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (data.steps[middle] < step) low = middle + 1; else high = middle;
    }
    return low > 0 && step - data.steps[low - 1] < data.steps[low] - step ? low - 1 : low;
  };
  document.querySelectorAll("svg.readable").forEach((svg) => {
    // Its title would pop up over the reading.
    const title = svg.querySelector("title");
    svg.setAttribute("aria-label", title.textContent);
    svg.removeAttribute("aria-labelledby");
    title.remove();
    const [left, right, from, to, bottom] = ["left", "right", "low", "high", "bottom"].map((k) => +svg.dataset[k]);
    const hair = document.createElementNS("http://www.w3.org/2000/svg", "line");
    hair.setAttribute("class", "hair");
    hair.setAttribute("y1", 28);
    hair.setAttribute("y2", bottom);
    hair.setAttribute("visibility", "hidden");
    svg.append(hair);
    svg.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect();
      const x = (event.clientX - area.left) / area.width * svg.viewBox.baseVal.width;
      const row = nearest(from + (x - left) / (right - left) * (to - from));
      const at = left + (data.steps[row] - from) / (to - from) * (right - left);
      hair.setAttribute("x1", at);
      hair.setAttribute("x2", at);
      hair.setAttribute("visibility", "visible");
      say(row);
    });
    svg.addEventListener("pointerleave", () => {
      hair.setAttribute("visibility", "hidden");
      say(last);
    });
  });
})();
