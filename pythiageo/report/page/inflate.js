"use strict";
// What Python's zlib.compress packed (RFC 1950 and 1951). Browsers unpack too, but only later: a page that is printed by
// a command is printed as soon as it is loaded, and everything must be there by then.
const lengthBase = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const lengthBits = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const distanceBits = [...Array(30).keys()].map((symbol) => Math.max(0, (symbol >> 1) - 1));
const distanceBase = distanceBits.map((_, symbol) => 1 + distanceBits.slice(0, symbol).reduce((sum, bits) => sum + (1 << bits), 0));
const lengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

// A code as a table by its next bits, first bit lowest: symbol and, in the lowest four bits, how many bits it has.
function codeTable(lengths) {
  const longest = Math.max(...lengths), table = new Uint16Array(1 << longest), next = [0];
  for (let bits = 1; bits <= longest; bits++) next[bits] = (next[bits - 1] + (bits > 1 ? lengths.filter((each) => each === bits - 1).length : 0)) << 1;
  lengths.forEach((bits, symbol) => {
    if (!bits) return;
    let code = next[bits]++, turned = 0;
    for (let i = 0; i < bits; i++, code >>= 1) turned = (turned << 1) | (code & 1);
    for (let at = turned; at < table.length; at += 1 << bits) table[at] = (symbol << 4) | bits;
  });
  return table;
}

function inflated(bytes) {
  let at = 2, hold = 0, held = 0, out = new Uint8Array(4 * bytes.length + 65536), size = 0;
  const need = (count) => { for (; held < count; held += 8) hold |= bytes[at++] << held; };
  const take = (count) => {
    need(count);
    const value = hold & ((1 << count) - 1);
    hold >>>= count;
    held -= count;
    return value;
  };
  const decode = (table) => {
    need(15);
    const found = table[hold & (table.length - 1)];
    hold >>>= found & 15;
    held -= found & 15;
    return found >> 4;
  };
  const room = (count) => {
    if (size + count <= out.length) return;
    const larger = new Uint8Array(2 * out.length + count);
    larger.set(out);
    out = larger;
  };
  const repeat = (count, value) => Array(count).fill(value);
  const readTables = () => {
    const literals = take(5) + 257, distances = take(5) + 1, lengths = Array(19).fill(0), found = [];
    for (const place of lengthOrder.slice(0, take(4) + 4)) lengths[place] = take(3);
    const table = codeTable(lengths);
    while (found.length < literals + distances) {
      const symbol = decode(table);
      if (symbol < 16) found.push(symbol);
      else if (symbol === 16) found.push(...repeat(3 + take(2), found[found.length - 1]));
      else found.push(...repeat(symbol === 17 ? 3 + take(3) : 11 + take(7), 0));
    }
    return [codeTable(found.slice(0, literals)), codeTable(found.slice(literals))];
  };
  const fixed = () => [codeTable([...repeat(144, 8), ...repeat(112, 9), ...repeat(24, 7), ...repeat(8, 8)]), codeTable(repeat(30, 5))];
  for (let last = 0; !last;) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      at -= held >> 3;
      hold = held = 0;
      const count = bytes[at] | (bytes[at + 1] << 8);
      room(count);
      out.set(bytes.subarray(at + 4, at + 4 + count), size);
      at += 4 + count;
      size += count;
      continue;
    }
    const [literals, distances] = kind === 1 ? fixed() : readTables();
    for (let symbol = decode(literals); symbol !== 256; symbol = decode(literals)) {
      room(258);
      if (symbol < 256) { out[size++] = symbol; continue; }
      const count = lengthBase[symbol - 257] + take(lengthBits[symbol - 257]), where = decode(distances);
      const from = size - distanceBase[where] - take(distanceBits[where]);
      for (let i = 0; i < count; i++) out[size++] = out[from + i];
    }
  }
  return out.subarray(0, size);
}
