// What a script of a web page might do. `round` returns a number that is always the same.
class Item {
  constructor(id, name) {
    this.id = id;
    this.name = name;
    this.tags = [name.length, "tag-" + (id % 7)];
  }
  describe(prefix) {
    return `${prefix}:${this.name}/${this.tags.join("+")}`;
  }
}

class Priced extends Item {
  constructor(id, name, price) {
    super(id, name);
    this.price = price;
  }
  get total() {
    return this.price * this.tags.length;
  }
}

function counter(step) {
  let count = 0;
  return () => (count += step);
}

function tree(depth) {
  return depth === 0 ? null : { left: tree(depth - 1), right: tree(depth - 1), depth };
}

function weight(node) {
  return node === null ? 0 : node.depth + weight(node.left) + weight(node.right);
}

function round() {
  const items = [];
  for (let id = 0; id < 60; id++) {
    const name = "item" + id;
    items.push(id % 2 ? new Item(id, name) : new Priced(id, name, id * 3));
  }
  const groups = new Map();
  for (const item of items) {
    const key = item.tags[1];
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(item);
  }
  const steps = items.map((item) => counter(item.id));
  const sums = steps.map((step) => step() + step());
  const text = items
    .filter((item) => item.id % 3 !== 0)
    .map((item) => item.describe("d"))
    .sort()
    .join(",");
  const copy = JSON.parse(JSON.stringify(items));
  const words = text.split(",").map((word) => word.toUpperCase().replace("ITEM", "I"));
  const priced = items.filter((item) => item instanceof Priced).reduce((sum, item) => sum + item.total, 0);
  const { left, ...rest } = tree(6);
  const spread = { ...rest, words: [...words], size: groups.size };
  return (
    text.length + copy.length + priced + weight(left) + spread.words.length + sums.reduce((a, b) => a + b, 0)
  );
}
