"use strict";
// Differences between two texts, word by word: the shortest edit by the table of longest common subsequences.

const LARGEST_TABLE = 4_000_000;

/** Segments [kind, text] with kind "same", "del" or "ins"; those of "same" and "del" make the old text,
 *  those of "same" and "ins" the new one. Texts too large for the table are compared line by line, or as a whole. */
function difference(before, after) {
  if (before === after) return before ? [["same", before]] : [];
  for (const pattern of [/\s+|[\p{L}\p{N}_]+|[^]/gu, /[^\n]*\n|[^\n]+/g]) {
    const segments = compare(before.match(pattern) || [], after.match(pattern) || []);
    if (segments) return readable(segments);
  }
  return [["del", before], ["ins", after]].filter((segment) => segment[1]);
}

/** Spaces between two changed words count as changed with them, so that a new sentence is one piece. */
function readable(segments) {
  const found = [];
  let gone = "", fresh = "";
  const flush = () => {
    if (gone) found.push(["del", gone]);
    if (fresh) found.push(["ins", fresh]);
    gone = fresh = "";
  };
  segments.forEach(([kind, text], index) => {
    const between = index > 0 && index < segments.length - 1 && /^\s+$/.test(text);
    if (kind === "same" && !between) { flush(); found.push([kind, text]); }
    else {
      if (kind !== "ins") gone += text;
      if (kind !== "del") fresh += text;
    }
  });
  flush();
  return found;
}

function compare(old, fresh) {
  let start = 0;
  while (start < old.length && start < fresh.length && old[start] === fresh[start]) start++;
  let end = 0;
  while (
    end < old.length - start && end < fresh.length - start &&
    old[old.length - 1 - end] === fresh[fresh.length - 1 - end]
  ) end++;
  const a = old.slice(start, old.length - end), b = fresh.slice(start, fresh.length - end);
  if ((a.length + 1) * (b.length + 1) > LARGEST_TABLE) return null;
  const width = b.length + 1;
  const common = new Uint32Array((a.length + 1) * width); // [i, j]: longest common subsequence of a[i:] and b[j:]
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      common[i * width + j] = a[i] === b[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  const segments = [];
  const add = (kind, text) => {
    if (!text) return;
    const last = segments[segments.length - 1];
    if (last && last[0] === kind) last[1] += text;
    else segments.push([kind, text]);
  };
  add("same", old.slice(0, start).join(""));
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { add("same", a[i]); i++; j++; }
    else if (i < a.length && (j === b.length || common[(i + 1) * width + j] >= common[i * width + j + 1])) add("del", a[i++]);
    else add("ins", b[j++]);
  }
  add("same", end ? old.slice(old.length - end).join("") : "");
  return segments;
}
