"use strict";
(() => {
  const byId = id => document.getElementById(id);
  const read = id => { const found = byId(id); return found && JSON.parse(found.textContent) };
  const Q = read("queue");
  const people = Q.people, place = new Map(people.map((person, at) => [person.id, at]));
  const nameOf = id => place.has(id) ? people[place.get(id)].name : Q.mates[id];
  const ACTIONS = { keep: "keep", reject: "reject", clear: "as cleaned" };
  const KEYS = [
    ["n, p", "next, previous person"],
    ["Enter", "this person is decided; go to the next who is not"],
    ["→ ←, l h", "next, previous face"],
    ["↓ ↑", "a row of faces down, up"],
    ["] [", "first face of the next, previous cluster"],
    ["k, r", "keep, reject this face"],
    ["c", "this face as cleaning decided"],
    ["Shift+k, r, c", "the same for all faces of its cluster"],
    ["m, s", "the other name is the same person (merge), is somebody else (split)"],
    ["a", "take the answer about the other name back"],
    ["b", "the next question about another name"],
    ["z", "the whole photograph, and back"],
    ["u", "undo, up to the first decision since the page was opened"],
    ["g", "the first person who is not decided"],
    ["/", "find a person by name"],
    ["d", "download the decisions as CSV"],
    ["?", "this list"],
  ];

  // What is decided, by person: f, faces and their action; p, action and the other name; done.
  let decisions = {}, at = 0, face = 0, pair = 0, undone = [], trouble = "", unsaved = 0;
  let unreadable = false; // what was kept before stays as it is until something is decided
  let entry = null, tiles = [];
  const store = `idcluster-review-${Q.key}`;

  const element = (tag, about = {}, ...inside) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(about)) {
      if (name === "on") made.addEventListener("click", value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false)
        made.setAttribute(name, value);
    }
    made.append(...inside.filter(one => one !== null && one !== undefined && one !== ""));
    return made;
  };
  const image = data => `data:image/jpeg;base64,${data}`;
  const number = (count, one, many) => `${count} ${count === 1 ? one : many || one + "s"}`;
  const say = text => { byId("said").textContent = text };

  // Keeping decisions in the browser.

  const isObject = value => value !== null && typeof value === "object" && !Array.isArray(value);
  const adopt = text => {
    const found = JSON.parse(text);
    if (!isObject(found) || !isObject(found.decisions)) throw new Error("another form");
    const sound = {};
    for (const [who, mine] of Object.entries(found.decisions)) {
      if (!isObject(mine)) continue;
      const kept = { f: {} };
      for (const [id, action] of Object.entries(isObject(mine.f) ? mine.f : {}))
        if (Object.hasOwn(ACTIONS, action)) kept.f[id] = action;
      if (Array.isArray(mine.p) && ["merge", "apart", "clear"].includes(mine.p[0])
        && typeof mine.p[1] === "string") kept.p = mine.p.slice(0, 2);
      if (mine.done) kept.done = 1;
      sound[who] = kept;
    }
    decisions = sound;
    unsaved = Number(found.unsaved) || 0;
    return found;
  };
  const warn = text => {
    trouble = text;
    byId("warning").hidden = !text;
    byId("warning").textContent = text;
  };
  const save = () => {
    if (unreadable) return;
    try {
      const now = JSON.stringify({ decisions, unsaved, at: people[at].id });
      localStorage.setItem(store, now);
      if (trouble) warn("");
    } catch (error) {
      const full = error && (error.name === "QuotaExceededError"
        || error.name === "NS_ERROR_DOM_QUOTA_REACHED");
      warn((full ? "The storage of this browser is full" : "This browser keeps nothing for this page")
        + ": decisions are lost when the page is closed or loaded again. Download the CSV before"
        + " that (key d).");
    }
  };
  const load = () => {
    let text = null;
    try { text = localStorage.getItem(store) } catch { return }
    if (text === null) return;
    try {
      const found = adopt(text);
      if (place.has(found.at)) at = place.get(found.at);
    } catch {
      unreadable = true;
      warn("What this browser kept of earlier decisions cannot be read; it is replaced by the next"
        + " decision.");
    }
  };
  // Another tab with the same page.
  addEventListener("storage", event => {
    if (event.key !== store || event.newValue === null) return;
    try { adopt(event.newValue) } catch { return }
    settle();
    undone = [];
    draw();
  });
  addEventListener("beforeunload", event => { if (trouble && unsaved) event.preventDefault() });

  const of = who => decisions[who] || (decisions[who] = { f: {} });
  const tidy = who => {
    const mine = decisions[who];
    if (mine && !mine.p && !mine.done && !Object.keys(mine.f).length) delete decisions[who];
  };
  // What has been written down since is no decision of this page any more.
  const settle = () => {
    for (const person of people) {
      const mine = decisions[person.id];
      if (!mine) continue;
      for (const [id, action] of Object.entries(mine.f))
        if ((person.hand[id] || "clear") === action) delete mine.f[id];
      tidy(person.id);
    }
    for (const one of Q.pairs) {
      const mine = decisions[one.one];
      if (mine && mine.p && mine.p[1] === one.other && (one.hand || "clear") === mine.p[0])
        delete mine.p;
      tidy(one.one);
    }
    if (!Object.values(decisions).some(mine => mine.p || Object.keys(mine.f).length)) unsaved = 0;
  };

  const handOf = (person, id) => {
    const mine = decisions[person.id];
    const action = mine && Object.hasOwn(mine.f, id) ? mine.f[id] : person.hand[id] || "";
    return action === "clear" ? "" : action;
  };
  const answerOf = one => {
    const mine = decisions[one.one];
    if (mine && mine.p)
      return mine.p[1] === one.other && mine.p[0] !== "clear" ? mine.p[0] : "";
    return one.hand;
  };
  const answered = person => person.pairs.every(one => answerOf(Q.pairs[one]));
  const begun = person => {
    const mine = decisions[person.id];
    return Boolean(mine && (mine.p || Object.keys(mine.f).length));
  };
  const decided = person => Boolean(decisions[person.id] && decisions[person.id].done)
    || person.earlier || (person.only_pairs && person.pairs.length > 0 && answered(person));

  // Every change goes through here, so that it can be taken back.
  const change = (who, what, said) => {
    const steps = [];
    for (const [id, mend] of what) {
      steps.push([id, JSON.stringify(decisions[id] || null)]);
      mend(of(id));
      tidy(id);
    }
    undone.push({ steps, who, said });
    unsaved += 1;
    unreadable = false;
    save();
    say(said);
    draw();
  };
  const undo = () => {
    const last = undone.pop();
    if (!last) return say("nothing to undo since the page was opened");
    for (const [id, text] of last.steps.reverse()) {
      const before = JSON.parse(text);
      if (before) decisions[id] = before; else delete decisions[id];
    }
    unsaved += 1;
    if (place.get(last.who) !== at) go(place.get(last.who));
    save();
    draw();
    say(`undone: ${last.said}`);
  };

  const setFaces = (person, ids, action) => mine => {
    for (const id of ids) {
      if ((person.hand[id] || "clear") === action) delete mine.f[id]; else mine.f[id] = action;
    }
  };
  const decide = action => {
    if (!entry.faces.length) return;
    const person = people[at], one = entry.faces[face];
    change(person.id, [[person.id, setFaces(person, [one.id], action)]],
      `face ${face + 1} of ${entry.faces.length}: ${ACTIONS[action]}`);
  };
  const inGroup = (name, action) => {
    const drawn = entry.faces.filter(one => (one.group || "") === name);
    const rest = entry.groups.find(one => one.name === name).rest;
    const all = [...drawn.map(one => [one.id, one.copy]), ...rest.map(one => [one[0], one[2]])];
    return all.filter(one => action !== "keep" || !one[1]).map(one => one[0]);
  };
  const decideGroup = (name, action) => {
    const person = people[at], ids = inGroup(name, action);
    change(person.id, [[person.id, setFaces(person, ids, action)]],
      `${titleOf(name)}: ${number(ids.length, "face")} ${ACTIONS[action]}`);
  };
  const answer = action => {
    const person = people[at];
    if (!person.pairs.length) return say("there is no other name to compare with");
    const one = Q.pairs[person.pairs[pair]];
    const other = one.one === person.id ? one.other : one.one;
    const words = { merge: "is the same person as", apart: "is somebody else than", clear: "and" };
    const lost = Q.pairs.find(two => two !== one && two.one === one.one && answerOf(two));
    const mend = mine => {
      const about = !mine.p || mine.p[1] === one.other;
      if (action === "clear" && !about) return;
      if (action === (one.hand || "clear")) delete mine.p; else mine.p = [action, one.other];
    };
    change(person.id, [[one.one, mend]], action === "clear"
      ? `no answer about ${nameOf(other)}`
      : `${person.name} ${words[action]} ${nameOf(other)}`
        + (lost ? `; this takes the place of the answer about ${nameOf(lost.other)}` : ""));
    const open = person.pairs.findIndex(two => !answerOf(Q.pairs[two]));
    if (open >= 0 && action !== "clear") { pair = open; draw() }
  };
  const done = () => {
    const person = people[at];
    if (!(decisions[person.id] && decisions[person.id].done))
      change(person.id, [[person.id, mine => { mine.done = 1 }]], `${person.name}: decided`);
    const next = firstOpen(at + 1);
    if (next === null) return say("everybody is decided; key d downloads the decisions");
    go(next);
    say(`${person.name} is decided; now ${people[next].name}`);
  };
  const firstOpen = from => {
    for (let step = 0; step < people.length; step += 1) {
      const here = (from + step) % people.length;
      if (!decided(people[here])) return here;
    }
    return null;
  };

  // Going about.

  const go = to => {
    if (to < 0 || to >= people.length)
      return say(to < 0 ? "this is the first person" : "this is the last person");
    at = to;
    open();
    save();
    scrollTo(0, 0);
    if (!typing()) focusFace(true);
  };
  const typing = () => document.activeElement === byId("find");
  const open = () => {
    const person = people[at];
    entry = read(`p-${person.id}`) || { faces: [], groups: [], photos: {}, without: [] };
    const order = new Map(entry.groups.map((one, place) => [one.name, place]));
    entry.faces.sort((one, other) => order.get(one.group || "") - order.get(other.group || ""));
    face = 0;
    pair = Math.max(0, person.pairs.findIndex(one => !answerOf(Q.pairs[one])));
    build();
    draw();
  };
  const focusFace = (preventScroll = false) => {
    if (!document.querySelector("dialog[open]"))
      (tiles[face] || byId("name")).focus({ preventScroll: preventScroll === true });
  };
  const toFace = to => {
    if (!entry.faces.length) return;
    face = Math.min(Math.max(to, 0), entry.faces.length - 1);
    draw();
    focusFace();
    if (byId("photo").open) photograph();
  };
  const row = step => {
    if (!tiles.length) return;
    const here = tiles[face].getBoundingClientRect(), middle = here.left + here.width / 2;
    let best = null, least = Infinity;
    tiles.forEach((tile, number) => {
      const there = tile.getBoundingClientRect(), down = (there.top - here.top) * step;
      if (down < 4) return;
      const far = down * 1000 + Math.abs(there.left + there.width / 2 - middle);
      if (far < least) { least = far; best = number }
    });
    if (best !== null) toFace(best);
  };
  const toGroup = step => {
    const names = entry.groups.map(one => one.name);
    const here = names.indexOf(entry.faces.length ? entry.faces[face].group || "" : "");
    for (let next = here + step; next >= 0 && next < names.length; next += step) {
      const first = entry.faces.findIndex(one => (one.group || "") === names[next]);
      if (first >= 0) return toFace(first);
    }
  };
  const find = () => {
    const said = byId("find").value.trim().toLowerCase();
    if (!said) return;
    for (let step = 1; step <= people.length; step += 1) {
      const here = (at + step) % people.length, person = people[here];
      if ([person.name, person.id, ...person.aliases].some(one => one.toLowerCase().includes(said)))
        return go(here);
    }
    say(`nobody here has these letters in the name: ${said}`);
  };

  // Drawing: what does not change is built once a person, the rest with every decision.

  const titleOf = name => name === "" ? "no cluster" : name === "0" ? "cluster 0, the largest"
    : `cluster ${name}`;
  const button = (text, key, on, about = {}) =>
    element("button", { on, tabindex: "0", ...about }, text, key ? " " : "",
      key ? element("kbd", {}, key) : "");
  const build = () => {
    const person = people[at], main = byId("person");
    tiles = [];
    const state = element("span", { id: "state", class: "state" });
    const head = element("h2", { id: "name", tabindex: "-1" },
      [person.name, ...person.aliases].join(", "), state);
    const why = element("ul", { class: "why", "aria-label": "why somebody should look" },
      ...person.why.map(one => element("li", {}, Q.reasons[one])));
    const facts = element("p", { class: "facts" },
      [...person.facts, ...entry.without, person.id].join(" · "));
    const pairs = person.pairs.map((one, place) => buildPair(person, Q.pairs[one], place));
    const groups = entry.groups.map(one => buildGroup(person, one));
    main.replaceChildren(head, ...(person.why.length ? [why] : []), facts, ...pairs, ...groups);
    if (!entry.faces.length)
      main.append(element("p", {}, "No face of this person is on this page."));
  };
  const buildPair = (person, one, place) => {
    const other = one.one === person.id ? one.other : one.one;
    const theirs = read(`p-${other}`);
    const best = theirs ? theirs.faces.filter(two => two.kept) : [];
    const shown = (best.length ? best : theirs ? theirs.faces : []).slice(0, 6);
    const ask = action => () => { pair = place; answer(action) };
    const likeness = one.cosine === null ? "" : `cosine ${one.cosine.toFixed(2)}`;
    return element("section", { class: "pair", "data-pair": place },
      element("div", {},
        element("h3", {}, `Is ${nameOf(other)} the same person?`),
        element("span", { class: "soft" }, [likeness,
          one.merged ? "they are one person as it is" : "", other].filter(Boolean).join(" · ")),
        button("Same: merge", "m", ask("merge"), { "data-answer": "merge" }),
        button("Somebody else: split", "s", ask("apart"), { "data-answer": "apart" }),
        button("No answer", "a", ask("clear"), { "data-answer": "" })),
      element("ul", { class: "faces", "aria-label": `faces of ${nameOf(other)}` },
        ...shown.map(two => element("li", {},
          element("img", { src: image(two.picture), alt: `${nameOf(other)}, kept` })))));
  };
  const buildGroup = (person, group) => {
    const mine = entry.faces.map((one, place) => [one, place])
      .filter(([one]) => (one.group || "") === group.name);
    const total = mine.length + group.rest.length, kept = inGroup(group.name, "keep").length;
    const of = group.rest.length ? `${mine.length} of ${number(total, "face")} drawn`
      : number(total, "face");
    const act = action => () => decideGroup(group.name, action);
    return element("section", { class: "group" },
      element("div", {},
        element("h3", {}, titleOf(group.name)),
        element("span", { class: "soft" }, of),
        button(`Keep all ${kept}`, "⇧K", act("keep")),
        button(`Reject all ${total}`, "⇧R", act("reject")),
        button("All as cleaned", "⇧C", act("clear"))),
      element("ul", { class: "faces", "aria-label": titleOf(group.name) },
        ...mine.map(([one, place]) => element("li", {}, buildFace(one, place)))));
  };
  const buildFace = (one, place) => {
    const tile = element("button", { class: "face", "data-face": one.id, tabindex: "-1" },
      element("img", { src: image(one.picture), alt: "" }), element("span", { class: "told" }));
    tile.addEventListener("click", () => { if (face === place) zoom(); else toFace(place) });
    tile.addEventListener("focus", () => { if (face !== place) { face = place; draw() } });
    tiles[place] = tile;
    return tile;
  };
  const aboutFace = one => [
    one.like === undefined ? "" : one.like.toFixed(2),
    one.side ? `${one.side} px` : "", one.faces > 1 ? `${one.faces} faces` : "",
    one.elsewhere ? "also under another name" : "",
  ].filter(Boolean).join(" · ");
  const draw = () => {
    const person = people[at], ready = people.filter(decided).length;
    byId("title").textContent = Q.title;
    byId("where").textContent = `person ${at + 1} of ${people.length}`;
    byId("bar").max = people.length;
    byId("bar").value = ready;
    byId("count").textContent = `${ready} of ${people.length} decided`
      + (unsaved ? `, ${number(unsaved, "change")} not in a file yet` : "");
    const state = byId("state"), mine = decisions[person.id];
    state.textContent = mine && mine.done ? "✓ decided" : decided(person)
      ? person.earlier ? "✓ decided earlier" : "✓ decided" : begun(person) ? "begun" : "open";
    state.classList.toggle("decided", decided(person));
    tiles.forEach((tile, place) => {
      const one = entry.faces[place], hand = handOf(person, one.id);
      const kept = hand ? hand === "keep" : Boolean(one.kept);
      tile.className = `face ${kept ? "kept" : "rejected"}${place === face ? " here" : ""}`;
      tile.tabIndex = place === face ? 0 : -1;
      tile.setAttribute("aria-current", place === face ? "true" : "false");
      const verdict = kept ? "✓ kept" : `✗ ${hand ? "rejected" : one.why || "not kept"}`;
      tile.querySelector(".told").replaceChildren(
        element("b", {}, verdict), aboutFace(one),
        hand ? element("span", { class: "hand" }, "by hand") : "");
      tile.setAttribute("aria-label", [`face ${place + 1} of ${entry.faces.length}`,
        titleOf(one.group || ""), verdict.slice(2), hand ? "by hand" : "", aboutFace(one)]
        .filter(Boolean).join(", "));
    });
    document.querySelectorAll("[data-pair]").forEach((section, place) => {
      const said = answerOf(Q.pairs[person.pairs[place]]);
      section.classList.toggle("here", place === pair && person.pairs.length > 1);
      section.querySelectorAll("[data-answer]").forEach(one =>
        one.setAttribute("aria-pressed", one.dataset.answer === said ? "true" : "false"));
    });
    if (byId("photo").open) photograph();
  };
  const photograph = () => {
    const one = entry.faces[face], data = entry.photos[one.image], person = people[at];
    const hand = handOf(person, one.id);
    byId("photo-title").textContent =
      `${person.name}: face ${face + 1} of ${entry.faces.length}, `
      + (hand ? `${hand === "keep" ? "kept" : "rejected"} by hand` : one.kept ? "kept" : one.why);
    const frame = byId("picture");
    frame.replaceChildren(element("img", {
      src: image(data || one.picture),
      alt: data ? "the whole photograph, with the face in a frame" : "the face",
    }));
    if (data && one.box) {
      const box = element("div", { class: "box" }), [left, top, right, bottom] = one.box;
      box.style.left = `${left * 100}%`; box.style.top = `${top * 100}%`;
      box.style.width = `${(right - left) * 100}%`; box.style.height = `${(bottom - top) * 100}%`;
      frame.append(box);
    }
    const link = one.link
      ? element("a", { href: one.link, target: "_blank", rel: "noopener noreferrer" }, one.address)
      : one.address || "";
    const lines = [["address", link], ["licence", one.licence], ["author", one.author],
      ["remark", one.detail], ["face", one.id]].filter(line => line[1]);
    byId("photo-text").replaceChildren(
      ...(data ? [] : [element("p", {}, "The whole photograph is not in this page, which has room"
        + " for some only (--photos-mb). It is at the address below.")]),
      element("dl", {}, ...lines.flatMap(line =>
        [element("dt", {}, line[0]), element("dd", {}, line[1])])));
  };
  const zoom = () => {
    if (!entry.faces.length) return;
    if (byId("photo").open) return byId("photo").close();
    photograph();
    byId("photo").showModal();
    byId("photo-title").focus();
  };
  const help = () => {
    if (byId("help").open) return byId("help").close();
    byId("key-list").replaceChildren(element("dl", {}, ...KEYS.flatMap(line =>
      [element("dt", {}, element("kbd", {}, line[0])), element("dd", {}, line[1])])));
    byId("help").showModal();
    byId("help-title").focus();
  };
  for (const id of ["photo", "help"]) byId(id).addEventListener("close", focusFace);

  // The file of decisions: about what is on this page, for the rest may be gone meanwhile.

  const table = () => {
    const lines = [], seen = new Set();
    let elsewhere = 0;
    for (const person of people) {
      const mine = decisions[person.id];
      if (!mine || !Object.keys(mine.f).length) continue;
      const found = read(`p-${person.id}`);
      const here = new Set([...found.faces.map(one => one.id),
        ...found.groups.flatMap(group => group.rest.map(one => one[0]))]);
      for (const [id, action] of Object.entries(mine.f)) {
        if (here.has(id)) lines.push(`${action},${id},`); else elsewhere += 1;
      }
    }
    for (const one of Q.pairs) {
      const mine = decisions[one.one];
      if (!mine || !mine.p || seen.has(one.one)) continue;
      if (!Q.pairs.some(two => two.one === one.one && two.other === mine.p[1])) continue;
      seen.add(one.one);
      const [action, other] = mine.p;
      lines.push(`${action},${one.one},${action === "clear" ? "" : other}`);
    }
    for (const [who, mine] of Object.entries(decisions)) {
      if (!place.has(who)) elsewhere += Object.keys(mine.f).length;
      if (mine.p && !seen.has(who)) elsewhere += 1;
    }
    return { lines, elsewhere };
  };
  const download = () => {
    const { lines, elsewhere } = table();
    const beside = elsewhere ? `; ${number(elsewhere, "decision")} about what is not on this page`
      + " left out" : "";
    if (!lines.length) return say(`no decisions to download${beside}`);
    const text = ["action,subject,target", ...lines].join("\n") + "\n";
    const link = element("a", { download: "decisions.csv",
      href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    unsaved = elsewhere; // what another page of this dataset has to save
    save();
    draw();
    say(`decisions.csv: ${number(lines.length, "decision")}${beside}`);
  };

  const group = action => () => {
    if (entry.faces.length) decideGroup(entry.faces[face].group || "", action);
  };
  const DO = {
    next: () => go(at + 1), previous: () => go(at - 1), undo, download, help, zoom, done,
    keep: () => decide("keep"), reject: () => decide("reject"), clear: () => decide("clear"),
    left: () => toFace(face - 1), right: () => toFace(face + 1),
    close: () => document.querySelectorAll("dialog[open]").forEach(one => one.close()),
  };
  const ON_KEYS = {
    n: DO.next, p: DO.previous, Enter: done, ArrowRight: DO.right, l: DO.right,
    ArrowLeft: DO.left, h: DO.left, ArrowDown: () => row(1), ArrowUp: () => row(-1),
    "]": () => toGroup(1), "[": () => toGroup(-1), Home: () => toFace(0),
    End: () => toFace(Infinity), k: DO.keep, r: DO.reject, c: DO.clear, K: group("keep"),
    R: group("reject"), C: group("clear"), m: () => answer("merge"), s: () => answer("apart"),
    a: () => answer("clear"), z: zoom, u: undo, d: download, "?": help,
    g: () => { const to = firstOpen(0); if (to === null) say("everybody is decided"); else go(to) },
    b: () => {
      const count = people[at].pairs.length;
      if (count) { pair = (pair + 1) % count; draw() }
    },
    "/": () => { byId("find").focus(); byId("find").select() },
  };
  const WITH_PHOTO = new Set(["z", "k", "r", "c", "h", "l", "u", "ArrowLeft", "ArrowRight"]);
  // A key that is held down goes about, and decides nothing.
  const REPEATED = new Set(["n", "p", "h", "l", "[", "]", "ArrowLeft", "ArrowRight", "ArrowUp",
    "ArrowDown"]);
  // By the shift key alone: with caps lock on, a letter decides about one face all the same.
  const keyOf = event => /^[a-z]$/i.test(event.key)
    ? event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase() : event.key;
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (typing()) {
      if (event.key === "Enter") { event.preventDefault(); find() }
      if (event.key === "Escape") { event.preventDefault(); byId("find").blur(); focusFace() }
      return;
    }
    const key = keyOf(event), on = Object.hasOwn(ON_KEYS, key) ? ON_KEYS[key] : null;
    if (!on || (event.repeat && !REPEATED.has(key))) return;
    if (byId("help").open && key !== "?") return;
    if (byId("photo").open && !WITH_PHOTO.has(key)) return;
    // Enter on a button or link is that button's, but not on a face.
    const active = document.activeElement;
    const own = active && active.matches("button:not(.face), a, summary");
    if (key === "Enter" && own) return;
    event.preventDefault();
    on();
  });
  document.addEventListener("click", event => {
    const pressed = event.target.closest("[data-do]");
    if (pressed) DO[pressed.dataset.do]();
  });

  load();
  settle();
  if (Q.left_out) { byId("left-out").hidden = false; byId("left-out").textContent = Q.left_out }
  document.title = `${Q.title} · idcluster`;
  open();
  save();
  focusFace(true);
})();
