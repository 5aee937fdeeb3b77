/* A sheet of thousands of tiles, of which only those in sight are in the document.

   A layer's sheet flows: as many columns as fit, in the order that is asked for. An atlas' tiles
   have places of their own. What is shown is in the address after the #, so that it can be kept,
   sent, and come back to. The data are in a script beside this one, as a page that is read from a
   disk may not fetch files. */
(function () {
  "use strict";
  const data = window.featvisSheet;
  const sheet = document.getElementById("sheet");
  const list = sheet.querySelector("ul");
  const find = document.getElementById("find");
  const sort = document.getElementById("sort");
  const down = document.getElementById("down");
  const show = document.getElementById("show");
  const told = document.getElementById("told");
  const smaller = document.getElementById("smaller");
  const larger = document.getElementById("larger");
  const SIDES = [32, 64, 96, 128, 192, 256];
  const CAPTION = 20;
  const count = data.names.length;
  const placed = data.places !== undefined;
  const nodes = new Map();
  const collator = new Intl.Collator(undefined, { sensitivity: "base" });

  let order = [];      // tiles that are shown, by place in the sheet
  let focused = 0;     // place of the tile that the keyboard is at
  let columns = 1;
  let cell = [0, 0];   // width and height in pixels
  let left = 0;
  let waiting = false;
  let usual = data.side;
  const state = { q: "", sort: "number", down: "", show: "", side: "96" };

  // ---- what is shown ----------------------------------------------------------------------

  const fold = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
  const texts = data.names.map((name, i) =>
    fold(data.prefix + name + (data.labels ? " " + data.labels[i] : "")));
  const files = (data.files || []).map(fold);

  function matches() {
    const asked = fold(state.q.trim());
    if (!asked) return null;
    const like = asked.match(/^like:(\d+)$/);
    if (like && data.nearest) {
      const at = data.names.indexOf(like[1]);
      return at < 0 ? [] : [at, ...data.nearest[at]];
    }
    const ranges = asked.split(",").map((part) => part.trim().match(/^(\d+)(?:-(\d+))?$/));
    if (ranges.every(Boolean) && !placed) {
      const within = (n) => ranges.some((r) => n >= Number(r[1]) && n <= Number(r[2] || r[1]));
      return data.names.map((name, i) => [Number(name), i]).filter(([n]) => within(n))
        .map(([, i]) => i);
    }
    const words = asked.split(/\s+/);
    const has = (text) => words.every((word) => text.includes(word));
    const named = new Set();
    files.forEach((text, i) => { if (has(text)) named.add(i); });
    const found = [];
    for (let i = 0; i < count; i++) {
      if (has(texts[i]) || (data.seen && data.seen[i].some((f) => named.has(f)))) found.push(i);
    }
    return found;
  }

  function arrange() {
    const found = matches();
    const values = data.figures[state.sort];
    let next = found || data.names.map((_, i) => i);
    const near = found && /^like:/.test(state.q.trim());
    if (state.sort === "likeness" && data.likeness) {
      const rank = new Array(count);
      data.likeness.forEach((i, place) => { rank[i] = place; });
      next = next.slice().sort((a, b) => rank[a] - rank[b]);
    } else if (state.sort === "name" && data.labels) {
      next = next.slice().sort((a, b) => collator.compare(data.labels[a], data.labels[b]) || a - b);
    } else if (values) {
      // What has no such figure comes last, whichever way.
      const sign = state.down ? -1 : 1;
      next = next.slice().sort((a, b) => {
        const [x, y] = [values.of[a], values.of[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * (x - y) || a - b;
      });
    }
    if (state.down && !values && !near) next = next.slice().reverse();
    order = next;
    const what = found === null ? "" : " of " + count;
    const noun = (found === null ? order.length : count) === 1 ? data.one : data.many;
    told.textContent = order.length + what + " " + noun;
    sheet.querySelector(".none").hidden = order.length > 0;
  }

  // ---- where it is ------------------------------------------------------------------------

  const side = () => Number(state.side);

  function measure() {
    const [w, h] = data.size;
    const high = Math.max(1, Math.round(side() * h / w));
    const caption = side() >= 64 && !(placed && side() < 128) ? CAPTION : 0;
    cell = [side() + 4, high + caption + 4];
    columns = placed ? data.columns : Math.max(1, Math.floor(sheet.clientWidth / cell[0]));
    const rows = placed ? data.rows : Math.ceil(order.length / columns);
    const width = columns * cell[0];
    left = Math.max(0, Math.floor((sheet.clientWidth - width) / 2));
    list.style.height = rows * cell[1] + "px";
    list.style.width = Math.max(width + left, 0) + "px";
    smaller.disabled = side() === SIDES[0];
    larger.disabled = side() === SIDES[SIDES.length - 1];
  }

  const rowOf = (place) => placed ? data.places[order[place]][0] : Math.floor(place / columns);
  const columnOf = (place) => placed ? data.places[order[place]][1] : place % columns;

  function inSight() {
    const rows = 1;  // beyond the window, so that scrolling finds them there
    const first = Math.floor(sheet.scrollTop / cell[1]) - rows;
    const last = Math.floor((sheet.scrollTop + sheet.clientHeight) / cell[1]) + rows;
    const places = [];
    if (placed) {
      const west = Math.floor((sheet.scrollLeft - left) / cell[0]) - 1;
      const east = Math.floor((sheet.scrollLeft + sheet.clientWidth - left) / cell[0]) + 1;
      for (let place = 0; place < order.length; place++) {
        const [row, column] = [rowOf(place), columnOf(place)];
        if (row >= first && row <= last && column >= west && column <= east) places.push(place);
      }
      return places;
    }
    const end = Math.min(order.length, (last + 1) * columns);
    for (let place = Math.max(0, first * columns); place < end; place++) places.push(place);
    return places;
  }

  // ---- the document -----------------------------------------------------------------------

  function shown(value) {
    if (value === null) return "–";
    if (Number.isInteger(value)) return String(value);
    return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);
  }

  function titleOf(tile) {
    let text = data.prefix + data.names[tile];
    if (data.labels && data.labels[tile]) text += ", " + data.labels[tile];
    const values = data.figures[state.sort];
    if (values) text += ", " + values.title + " " + shown(values.of[tile]);
    if (data.off && data.off[tile]) text += ", " + data.offTitle;
    return text;
  }

  function captionOf(tile) {
    const values = data.figures[state.sort];
    const name = placed ? "" : data.names[tile];
    const more = values ? shown(values.of[tile]) : data.labels ? data.labels[tile] : "";
    return [name, more].filter(Boolean).join(" · ");
  }

  function picture(tile, image) {
    const name = data.names[tile];
    const small = side() <= data.sprite.side && state.show === "";
    image.classList.toggle("sprite", small);
    const [w, h] = data.size;
    image.style.height = Math.round(side() * h / w) + "px";
    image.style.objectPosition = "";
    let source = name + ".jpg";
    if (state.show === "photograph") source = name + "-photograph.jpg";
    else if (small) {
      const at = tile % data.sprite.count;
      const x = (at % data.sprite.columns) * data.sprite.side;
      const y = Math.floor(at / data.sprite.columns) * data.sprite.height;
      source = "sprite-" + Math.floor(tile / data.sprite.count) + ".jpg";
      image.style.objectPosition = -x + "px " + -y + "px";
    } else if (side() > data.thumb) source = encodeURIComponent(data.full[tile]);
    if (image.getAttribute("src") !== source) image.setAttribute("src", source);
  }

  function made() {
    const item = document.createElement("li");
    const link = document.createElement("a");
    const image = document.createElement("img");
    const caption = document.createElement("span");
    image.alt = "";
    image.decoding = "async";
    caption.className = "caption";
    caption.setAttribute("aria-hidden", "true");
    link.append(image, caption);
    item.append(link);
    return item;
  }

  function draw() {
    waiting = false;
    const wanted = inSight();
    if (order.length && !wanted.includes(focused)) wanted.push(focused);
    const keep = new Set(wanted.map((place) => order[place]));
    const spare = [];
    for (const [tile, item] of nodes) {
      if (!keep.has(tile)) { nodes.delete(tile); spare.push(item); }
    }
    // In their order, as a reader of the screen goes through them.
    wanted.sort((a, b) => a - b);
    let before = null;
    for (const place of wanted) {
      const tile = order[place];
      let item = nodes.get(tile);
      if (!item) {
        item = spare.pop() || made();
        nodes.set(tile, item);
      }
      const link = item.firstChild;
      item.style.transform =
        `translate(${left + columnOf(place) * cell[0]}px, ${rowOf(place) * cell[1]}px)`;
      item.style.width = cell[0] + "px";
      item.style.height = cell[1] + "px";
      item.setAttribute("aria-posinset", place + 1);
      item.setAttribute("aria-setsize", order.length);
      item.classList.toggle("off", Boolean(data.off && data.off[tile]));
      link.href = data.names[tile] + ".html";
      link.title = titleOf(tile);
      link.setAttribute("aria-label", link.title);
      link.tabIndex = place === focused ? 0 : -1;
      link.dataset.place = place;
      picture(tile, link.firstChild);
      link.lastChild.textContent = captionOf(tile);
      link.lastChild.hidden = cell[1] < Math.round(side() * data.size[1] / data.size[0]) + CAPTION;
      const after = before ? before.nextSibling : list.firstChild;
      // The tile with the focus stays where it is: what is moved loses it.
      if (after !== item && item !== document.activeElement?.parentNode) list.insertBefore(item, after);
      before = item;
    }
    for (const item of spare) item.remove();
  }

  function soon() {
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }

  // ---- what changes it --------------------------------------------------------------------

  let later = 0;
  function keep() {
    clearTimeout(later);
    later = setTimeout(() => {
      const kept = new URLSearchParams();
      for (const [key, value] of Object.entries(state)) {
        if (value && value !== { sort: "number", side: usual }[key]) kept.set(key, value);
      }
      if (sheet.scrollTop > 0 || sheet.scrollLeft > 0) {
        kept.set("at", Math.round(sheet.scrollLeft) + "," + Math.round(sheet.scrollTop));
      }
      const text = kept.toString();
      history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
    }, 200);
  }

  function update(anew) {
    if (anew) {
      const tile = order[focused];
      arrange();
      focused = Math.max(0, order.indexOf(tile));
      if (!placed) { focused = 0; sheet.scrollTop = 0; }
    }
    measure();
    draw();
    keep();
  }

  function goTo(place, options) {
    focused = Math.min(Math.max(place, 0), order.length - 1);
    const [x, y] = [left + columnOf(focused) * cell[0], rowOf(focused) * cell[1]];
    if (y < sheet.scrollTop) sheet.scrollTop = y;
    if (y + cell[1] > sheet.scrollTop + sheet.clientHeight) {
      sheet.scrollTop = y + cell[1] - sheet.clientHeight;
    }
    if (x < sheet.scrollLeft) sheet.scrollLeft = x;
    if (x + cell[0] > sheet.scrollLeft + sheet.clientWidth) {
      sheet.scrollLeft = x + cell[0] - sheet.clientWidth;
    }
    draw();
    const link = list.querySelector(`a[data-place="${focused}"]`);
    if (link && !(options && options.quiet)) link.focus({ preventScroll: true });
  }

  /* Of tiles that have places: the nearest one in a direction. */
  function neighbour(dy, dx) {
    if (!placed) return focused + dy * columns + dx;
    let best = focused, least = Infinity;
    const [row, column] = [rowOf(focused), columnOf(focused)];
    for (let place = 0; place < order.length; place++) {
      const [y, x] = [rowOf(place) - row, columnOf(place) - column];
      const along = y * dy + x * dx;
      const across = Math.abs(y * dx) + Math.abs(x * dy);
      if (along > 0 && along + 3 * across < least) { least = along + 3 * across; best = place; }
    }
    return best;
  }

  function zoom(step, x, y) {
    const at = SIDES.indexOf(side()) + step;
    if (at < 0 || at >= SIDES.length) return;
    // What is under the pointer, or in the middle, stays there; of a sheet that flows, its tile.
    const [px, py] = [x ?? sheet.clientWidth / 2, y ?? sheet.clientHeight / 2];
    const [u, v] = [(sheet.scrollLeft + px - left) / cell[0], (sheet.scrollTop + py) / cell[1]];
    const middle = Math.floor(v) * columns + Math.min(Math.max(Math.floor(u), 0), columns - 1);
    state.side = String(SIDES[at]);
    measure();
    if (placed) {
      sheet.scrollLeft = u * cell[0] + left - px;
      sheet.scrollTop = v * cell[1] - py;
    } else {
      sheet.scrollTop = (Math.floor(middle / columns) + v % 1) * cell[1] - py;
    }
    draw();
    keep();
  }

  find.addEventListener("input", () => { state.q = find.value; update(true); });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      if (order.length) goTo(0);
    }
  });
  sort?.addEventListener("change", () => {
    state.sort = sort.value;
    // Of figures the highest are wanted first; of numbers and names the first.
    state.down = data.figures[state.sort] ? "1" : "";
    down.setAttribute("aria-pressed", String(Boolean(state.down)));
    update(true);
  });
  down?.addEventListener("click", () => {
    state.down = state.down ? "" : "1";
    down.setAttribute("aria-pressed", String(Boolean(state.down)));
    update(true);
  });
  show?.addEventListener("change", () => { state.show = show.value; update(false); });
  smaller.addEventListener("click", () => zoom(-1));
  larger.addEventListener("click", () => zoom(1));
  sheet.addEventListener("scroll", () => { soon(); keep(); }, { passive: true });
  sheet.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = sheet.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1 : -1, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });

  let apart = 0;
  const spread = (touches) =>
    Math.hypot(touches[0].clientX - touches[1].clientX, touches[0].clientY - touches[1].clientY);
  sheet.addEventListener("touchstart", (event) => {
    if (event.touches.length === 2) apart = spread(event.touches);
  }, { passive: true });
  sheet.addEventListener("touchmove", (event) => {
    if (event.touches.length !== 2 || !apart) return;
    event.preventDefault();
    const ratio = spread(event.touches) / apart;
    if (ratio > 1.3 || ratio < 1 / 1.3) {
      const box = sheet.getBoundingClientRect();
      const [a, b] = event.touches;
      apart = spread(event.touches);
      zoom(ratio > 1 ? 1 : -1, (a.clientX + b.clientX) / 2 - box.left,
        (a.clientY + b.clientY) / 2 - box.top);
    }
  }, { passive: false });

  list.addEventListener("focusin", (event) => {
    const link = event.target.closest("a");
    if (link) focused = Number(link.dataset.place);
  });
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(sheet.clientHeight / cell[1]) - 1);
    const moves = {
      ArrowLeft: () => neighbour(0, -1), ArrowRight: () => neighbour(0, 1),
      ArrowUp: () => neighbour(-1, 0), ArrowDown: () => neighbour(1, 0),
      Home: () => 0, End: () => order.length - 1,
    };
    if (!placed) {
      moves.PageUp = () => focused - page * columns;
      moves.PageDown = () => focused + page * columns;
    }
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      const next = move();
      // Up from the first row and down from the last goes nowhere.
      if (next >= 0 && next < order.length) goTo(next);
      else if (event.key.startsWith("Page")) goTo(next);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName || "");
    if (typing) return;
    if (event.key === "/") { event.preventDefault(); find.focus(); find.select(); }
    if (event.key === "+" || event.key === "=") zoom(1);
    if (event.key === "-") zoom(-1);
  });
  new ResizeObserver(() => { measure(); draw(); }).observe(sheet);
  window.addEventListener("hashchange", start);

  /* Tiles are as large as lets all of them be seen; of a sheet that flows no smaller than usual. */
  function atFirst() {
    const fits = SIDES.filter((one) => {
      state.side = String(one);
      measure();
      return columns * cell[0] <= sheet.clientWidth
        && Number.parseFloat(list.style.height) <= sheet.clientHeight;
    });
    const most = fits.pop() || SIDES[0];
    return String(placed ? most : Math.max(most, Number(data.side)));
  }

  function start() {
    const given = new URLSearchParams(location.hash.slice(1));
    state.q = given.get("q") || "";
    state.sort = given.get("sort") || "number";
    state.down = given.get("down") || "";
    state.show = given.get("show") || "";
    find.value = state.q;
    if (sort) {
      sort.value = state.sort;
      if (sort.selectedIndex < 0) { state.sort = "number"; sort.value = "number"; }
      down.setAttribute("aria-pressed", String(Boolean(state.down)));
    }
    if (show) {
      show.value = state.show;
      if (show.selectedIndex < 0) { state.show = ""; show.value = ""; }
    } else state.show = "";
    arrange();
    state.side = SIDES.includes(Number(given.get("side"))) ? given.get("side")
      : (usual = atFirst());
    measure();
    const at = (given.get("at") || "0,0").split(",").map(Number);
    sheet.scrollTo(at[0] || 0, at[1] || 0);
    focused = placed ? 0 : Math.min(Math.ceil(sheet.scrollTop / cell[1]) * columns,
      Math.max(order.length - 1, 0));
    draw();
  }
  start();
})();
