// What a report can do beyond being read: theme, sorting, filter, pointer, clipboard.
// Everything is there without it; what needs it is hidden in the HTML and shown here.
(() => {
  "use strict";

  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Theme: the system's, until the reader wants the other one.

  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const systemTheme = () => (systemDark.matches ? "dark" : "light");
  const KEY = "tunetrail-theme";

  function remembered() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // some browsers keep nothing for pages opened from a file
    }
  }

  function remember(theme) {
    try {
      if (theme === systemTheme()) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, theme);
    } catch {
      // as above: the choice then holds for this page view
    }
  }

  function showTheme(theme) {
    root.dataset.theme = theme;
    document.getElementById("theme")?.setAttribute("aria-pressed", theme === "dark");
  }

  showTheme(remembered() ?? systemTheme()); // at once, so that the page never flashes
  systemDark.addEventListener("change", () => showTheme(remembered() ?? systemTheme()));

  function startTheme() {
    const button = document.getElementById("theme");
    button.hidden = false;
    showTheme(root.dataset.theme);
    button.addEventListener("click", () => {
      showTheme(root.dataset.theme === "dark" ? "light" : "dark");
      remember(root.dataset.theme);
    });
  }

  // Sorting: a button in each column heading. Rows without a value stay last.

  const column = (heading) => Number(heading.dataset.column ?? heading.cellIndex);
  const headings = (table) => all("thead th[scope=col]", table);

  function valueOf(cell) {
    const value = cell.dataset.value;
    if (value === undefined) return cell.textContent.trim();
    return value === "" ? null : Number(value);
  }

  function compare(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one === "number") return sign * (one - other);
    return sign * one.localeCompare(other, "en", { numeric: true });
  }

  function sort(heading, order) {
    const table = heading.closest("table");
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[column(heading)]), row]);
    rows.sort(([one], [other]) => compare(one, other, sign));
    table.tBodies[0].append(...rows.map(([, row]) => row));
    for (const each of headings(table)) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
  }

  function startSorting() {
    for (const heading of all("table").flatMap(headings)) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      button.addEventListener("click", () => {
        sort(heading, heading.getAttribute("aria-sort") === first ? second : first);
        const name = heading.closest("table").id;
        if (!name) return; // only what has a name is kept in the address
        sorted.set(name, heading);
        writeAddress();
      });
    }
  }

  // Filter: a row of a leaderboard is one method on one task; what hides it hides all of it.

  const form = () => document.getElementById("filter");
  const boxes = () => all("input[type=checkbox]", form());
  /** Table → the heading that the reader sorted it by. */
  const sorted = new Map();

  function filter() {
    const fields = new FormData(form());
    const [methods, words] = [fields.getAll("method"), fields.get("find").toLowerCase().split(/\s+/)];
    const withoutTasks = new Set(boxes().filter((b) => b.name === "task" && !b.checked).map((b) => b.value));
    let [rows, hidden] = [0, 0];
    for (const task of all("section.task")) {
      const name = task.dataset.task;
      const about = `${name} ${task.querySelector("h2").textContent}`;
      const shown = new Set();
      const board = all(".board tbody tr", task);
      for (const row of board) {
        const label = row.dataset.method;
        const text = `${about} ${label} ${row.cells[0].textContent}`.toLowerCase();
        if (!withoutTasks.has(name) && methods.includes(label) && words.every((word) => text.includes(word)))
          shown.add(label);
      }
      for (const part of all("[data-method]", task))
        part.toggleAttribute("hidden", !shown.has(part.dataset.method));
      for (const part of all(`[data-task="${CSS.escape(name)}"]`)) part.hidden = shown.size === 0;
      const lost = board.length - shown.size;
      const note = task.querySelector(".left-out");
      note.hidden = lost === 0;
      note.textContent = `Hidden by the filter: ${lost} of ${board.length} methods.`;
      rows += board.length;
      hidden += lost;
    }
    const state = document.getElementById("state");
    const text = hidden ? `${hidden} of ${rows} results hidden` : `All ${rows} results shown`;
    if (state.textContent !== text) state.textContent = text;
    state.classList.toggle("some", hidden > 0);
    setStops();
  }

  // Address: "#SECTION?find=…&hide-method=…&hide-task=…&sort=TABLE:COLUMN:ORDER".

  function readAddress() {
    const [section, query] = location.hash.slice(1).split("?");
    if (query === undefined) return writeAddress(); // a link within the page keeps what is set
    const asked = new URLSearchParams(query);
    form().elements.find.value = asked.get("find") ?? "";
    for (const box of boxes()) box.checked = !asked.getAll(`hide-${box.name}`).includes(box.value);
    for (const entry of asked.getAll("sort")) {
      const [name, place, order] = entry.split(":");
      const table = document.getElementById(name);
      const heading = table && headings(table).find((each) => column(each) === Number(place));
      if (!heading || !["ascending", "descending"].includes(order)) continue;
      sort(heading, order);
      sorted.set(name, heading);
    }
    filter();
    if (section) document.getElementById(decodeURIComponent(section))?.scrollIntoView();
  }

  function writeAddress() {
    const asked = new URLSearchParams();
    const find = form().elements.find.value.trim();
    if (find) asked.set("find", find);
    for (const box of boxes()) if (!box.checked) asked.append(`hide-${box.name}`, box.value);
    for (const [name, heading] of sorted)
      asked.append("sort", `${name}:${column(heading)}:${heading.getAttribute("aria-sort")}`);
    const section = location.hash.slice(1).split("?")[0];
    const query = String(asked);
    const hash = query ? `${section}?${query}` : section;
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function startFilter() {
    form().hidden = false;
    const changed = () => {
      filter();
      writeAddress();
    };
    form().addEventListener("input", changed);
    document.getElementById("everything").addEventListener("click", () => {
      form().reset();
      changed();
    });
    form().addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", readAddress);
    filter();
    readAddress();
  }

  // Clipboard: the old way where a browser has no clipboard for pages opened from a file.

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const field = document.createElement("textarea");
      field.value = text;
      field.className = "unseen";
      document.body.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      return done;
    }
  }

  function startCopying() {
    for (const button of all(".copy")) {
      button.hidden = false;
      const label = button.textContent;
      button.addEventListener("click", async () => {
        const text = "copyAddress" in button.dataset ? location.href : button.dataset.copy;
        const done = await copy(text);
        button.focus(); // the old way takes it
        button.textContent = done ? "Copied" : "Not copied";
        announce(button.textContent);
        setTimeout(() => (button.textContent = label), 1500);
      });
    }
  }

  function announce(text) {
    const told = document.getElementById("told");
    told.textContent = "";
    setTimeout(() => (told.textContent = text)); // the same text twice is told twice
  }

  // Telling: what the pointer or the keyboard is on is told, and its method stands out in all figures.

  const drawings = () => all("figure svg:has([data-tip])");

  /** Marks that the keyboard can reach, one method after the other; of parts that tell the same, as
      line and marker do, the last. */
  function marksOf(drawing) {
    const shown = all("[data-tip]", drawing).filter((mark) => !mark.closest("[hidden]"));
    const marks = [...new Map(shown.map((mark) => [mark.dataset.tip, mark])).values()];
    const method = (mark) => mark.closest("[data-method]").dataset.method;
    const methods = [...new Set(marks.map(method))];
    return marks.sort((one, other) => methods.indexOf(method(one)) - methods.indexOf(method(other)));
  }

  /** A figure is one tab stop: the mark the reader was on, or the first. */
  function setStops() {
    for (const drawing of drawings()) {
      const marks = marksOf(drawing);
      const stop = marks.find((mark) => mark.tabIndex === 0) ?? marks[0];
      for (const mark of all("[tabindex]", drawing)) mark.removeAttribute("tabindex");
      for (const mark of marks) mark.setAttribute("tabindex", mark === stop ? 0 : -1);
    }
  }

  function step(event) {
    const mark = event.target.closest?.("figure svg [data-tip]");
    if (!mark || event.altKey || event.ctrlKey || event.metaKey) return;
    const marks = marksOf(mark.closest("svg"));
    const place = marks.indexOf(mark);
    const last = marks.length - 1;
    const next = {
      ArrowRight: Math.min(place + 1, last), ArrowDown: Math.min(place + 1, last),
      ArrowLeft: Math.max(place - 1, 0), ArrowUp: Math.max(place - 1, 0), Home: 0, End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault(); // the page does not scroll
    marks[next].focus();
  }

  /** A finger covers more than a mark: the nearest one within its width. */
  function underFinger(event) {
    const drawing = event.target.closest?.("figure svg");
    if (!drawing) return event.target;
    const away = (mark) => {
      const { left, right, top, bottom } = mark.getBoundingClientRect();
      return Math.hypot((left + right) / 2 - event.clientX, (top + bottom) / 2 - event.clientY);
    };
    const near = marksOf(drawing).map((mark) => [away(mark), mark]).sort(([one], [other]) => one - other)[0];
    return near && near[0] <= FINGER ? near[1] : event.target;
  }

  const FINGER = 22; // half the width of a fingertip, in CSS pixels

  function startTelling() {
    const tip = document.createElement("div");
    tip.id = "tip";
    tip.hidden = true;
    document.body.append(tip);
    for (const drawing of drawings()) {
      drawing.setAttribute("role", "group"); // an image would have no parts
      for (const mark of all("[data-tip]", drawing)) {
        mark.setAttribute("role", "img");
        mark.setAttribute("aria-label", mark.dataset.tip);
      }
    }
    setStops();
    let told = null;
    const tell = (target, x, y) => {
      told = target?.closest?.("[data-tip]") ?? null;
      tip.hidden = !told;
      if (told) {
        tip.textContent = told.dataset.tip;
        const { clientWidth: width, clientHeight: height } = root;
        const [right, below] = [x + 14, y + 18];
        tip.style.left = `${Math.max(8, Math.min(right, width - tip.offsetWidth - 8))}px`;
        const above = y - tip.offsetHeight - 10;
        tip.style.top = `${below + tip.offsetHeight > height ? above : below}px`;
      }
      const marked = target?.closest?.("figure [data-method], tbody [data-method]");
      const section = marked?.closest("section");
      const label = marked?.dataset.method;
      for (const each of all("section")) {
        const lit = each === section;
        if (!lit && !each.classList.contains("lit")) continue;
        each.classList.toggle("lit", lit);
        for (const part of all("figure [data-method]", each))
          part.classList.toggle("named", lit && part.dataset.method === label);
      }
    };
    const tellOf = (mark) => {
      const { right, bottom } = mark.getBoundingClientRect();
      tell(mark, right - 10, bottom - 10);
    };
    addEventListener("pointerover", (event) => {
      const target = event.pointerType === "touch" ? underFinger(event) : event.target;
      tell(target, event.clientX, event.clientY);
    });
    addEventListener("focusin", (event) => {
      const mark = event.target.closest("figure svg [data-tip]");
      if (!mark) return;
      for (const each of all("[tabindex='0']", mark.closest("svg"))) each.tabIndex = -1;
      mark.tabIndex = 0;
      tellOf(mark);
    });
    // A tap tells of another mark before it takes the focus from this one.
    addEventListener("focusout", (event) => event.target === told && tell());
    // The browser scrolls to what gets the focus; its tip goes along.
    const follow = () => (told && told === document.activeElement ? tellOf(told) : tell());
    addEventListener("scroll", follow, { passive: true });
    addEventListener("keydown", (event) => (event.key === "Escape" ? tell() : step(event)));
    // A finger that is lifted leaves as well, and wants to read.
    document.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && tell());
  }

  // Print: what is folded is unfolded, and folded again afterwards.

  function startPrinting() {
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = all("details:not([open])");
      for (const each of opened) each.open = true;
    });
    addEventListener("afterprint", () => {
      for (const each of opened) each.open = false;
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    startTheme();
    startCopying();
    startPrinting();
    startTelling();
    startSorting();
    if (form()) startFilter();
  });
})();
