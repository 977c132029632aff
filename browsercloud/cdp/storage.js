// What an origin has stored: `take()` tells it, `put(origin)` makes it so. Run in a page of ours.
(() => {
  const bytes = (buffer) => {
    const all = new Uint8Array(buffer);
    let text = '';
    for (let at = 0; at < all.length; at += 0x8000)
      text += String.fromCharCode(...all.subarray(at, at + 0x8000));
    return btoa(text);
  };
  const buffer = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer;
  const ARRAYS = {
    i8: Int8Array, ui8: Uint8Array, ui8c: Uint8ClampedArray, i16: Int16Array, ui16: Uint16Array,
    i32: Int32Array, ui32: Uint32Array, f32: Float32Array, f64: Float64Array,
    bi64: BigInt64Array, bui64: BigUint64Array,
  };

  // Objects that JSON gives back as they were need no encoding.
  const isPlain = (value, above = []) => {
    if (value === null) return above.length > 0;
    if (typeof value === 'string' || typeof value === 'boolean') return true;
    if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0);
    if (typeof value !== 'object' || above.includes(value)) return false;
    const own = Object.keys(value);
    if (Array.isArray(value)) {
      if (own.length !== value.length) return false;
    } else if (Object.getPrototypeOf(value) !== Object.prototype || own.includes('__proto__')) {
      return false;
    }
    return own.every((key) => isPlain(value[key], [...above, value]));
  };
  const shares = (value, seen = new Set()) => {
    if (typeof value !== 'object' || value === null) return false;
    if (seen.has(value)) return true;
    seen.add(value);
    return Object.values(value).some((each) => shares(each, seen));
  };

  const encode = async (value, seen, path) => {
    if (value === undefined) return { v: 'undefined' };
    if (value === null) return { v: 'null' };
    if (Object.is(value, NaN)) return { v: 'NaN' };
    if (Object.is(value, Infinity)) return { v: 'Infinity' };
    if (Object.is(value, -Infinity)) return { v: '-Infinity' };
    if (Object.is(value, -0)) return { v: '-0' };
    if (typeof value === 'bigint') return { bi: value.toString() };
    if (typeof value !== 'object') return value;
    if (seen.has(value)) return { ref: seen.get(value) };
    const id = seen.size + 1;
    seen.set(value, id);
    const each = (inner, step) => encode(inner, seen, `${path}.${step}`);
    if (value instanceof Date) return { d: Number.isNaN(+value) ? 'Invalid Date' : value.toJSON(), id };
    if (value instanceof RegExp) return { r: { p: value.source, f: value.flags }, id };
    if (value instanceof Error) return { e: { n: value.name, m: value.message, s: value.stack || '' }, id };
    if (value instanceof ArrayBuffer) return { ab: { b: bytes(value) }, id };
    for (const [kind, type] of Object.entries(ARRAYS))
      if (value instanceof type) {
        const part = value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength);
        return { ta: { b: bytes(part), k: kind }, id };
      }
    if (value instanceof DataView) {
      const part = value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength);
      return { dv: { b: bytes(part) }, id };
    }
    if (value instanceof Blob) {
      const file = value instanceof File ? { n: value.name, l: value.lastModified } : {};
      return { bl: { b: bytes(await value.arrayBuffer()), t: value.type, ...file }, id };
    }
    for (const [kind, type] of [['bo', Boolean], ['nu', Number], ['st', String]])
      if (value instanceof type) return { [kind]: await each(value.valueOf(), kind), id };
    if (value instanceof Map) {
      const m = [];
      for (const [key, inner] of value) m.push({ k: await each(key, 'key'), v: await each(inner, 'value') });
      return { m, id };
    }
    if (value instanceof Set) {
      const s = [];
      for (const inner of value) s.push(await each(inner, 'item'));
      return { s, id };
    }
    if (Array.isArray(value)) {
      const a = [];
      for (let at = 0; at < value.length; at++)
        a.push(at in value ? await each(value[at], at) : { v: 'hole' });
      return { a, id };
    }
    const kind = Object.prototype.toString.call(value);
    if (kind !== '[object Object]') throw new Error(`${path} holds a ${kind.slice(8, -1)}, which cannot be carried out of the browser`);
    const o = [];
    for (const key of Object.keys(value)) o.push({ k: key, v: await each(value[key], key) });
    return { o, id };
  };

  const VALUES = { undefined, null: null, NaN, Infinity, '-Infinity': -Infinity, '-0': -0 };
  const decode = (told, refs) => {
    if (typeof told !== 'object' || told === null) return told;
    const keep = (value) => { if (told.id !== undefined) refs.set(told.id, value); return value; };
    if ('ref' in told) return refs.get(told.ref);
    if ('v' in told) return VALUES[told.v];
    if ('bi' in told) return BigInt(told.bi);
    if ('d' in told) return keep(new Date(told.d));
    if ('u' in told) return keep(new URL(told.u));
    if ('r' in told) return keep(new RegExp(told.r.p, told.r.f));
    if ('e' in told) {
      const type = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError }[told.e.n] || Error;
      const error = new type(told.e.m);
      error.stack = told.e.s;
      return keep(error);
    }
    if ('ab' in told) return keep(buffer(told.ab.b));
    if ('ta' in told) return keep(new ARRAYS[told.ta.k](buffer(told.ta.b)));
    if ('dv' in told) return keep(new DataView(buffer(told.dv.b)));
    if ('bl' in told) {
      const { b, t, n, l } = told.bl;
      return keep(n === undefined ? new Blob([buffer(b)], { type: t }) : new File([buffer(b)], n, { type: t, lastModified: l }));
    }
    for (const kind of ['bo', 'nu', 'st']) if (kind in told) return keep(Object(decode(told[kind], refs)));
    if ('m' in told) {
      const map = keep(new Map());
      for (const { k, v } of told.m) map.set(decode(k, refs), decode(v, refs));
      return map;
    }
    if ('s' in told) {
      const set = keep(new Set());
      for (const value of told.s) set.add(decode(value, refs));
      return set;
    }
    if ('a' in told) {
      const array = keep([]);
      array.length = told.a.length;
      told.a.forEach((value, at) => { if (value?.v !== 'hole') array[at] = decode(value, refs); });
      return array;
    }
    const object = keep({});
    for (const { k, v } of told.o || [])
      Object.defineProperty(object, k, { value: decode(v, refs), writable: true, enumerable: true, configurable: true });
    return object;
  };

  const done = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('a page holds the database open'));
  });
  const written = (change) => new Promise((resolve, reject) => {
    change.oncomplete = () => resolve();
    change.onabort = change.onerror = () => reject(change.error);
  });
  const pathOf = ({ keyPath }) => Array.isArray(keyPath) ? { keyPathArray: keyPath } : keyPath === null ? {} : { keyPath };
  const toldOf = async (name, value, path) => isPlain(value) && !shares(value)
    ? { [name]: value }
    : { [`${name}Encoded`]: await encode(value, new Map(), path) };

  const takeStore = async (database, name) => {
    const store = database.transaction(name, 'readonly').objectStore(name);
    const facts = { name, autoIncrement: store.autoIncrement, ...pathOf(store) };
    const indexes = [...store.indexNames].map((each) => {
      const index = store.index(each);
      return { name: each, multiEntry: index.multiEntry, unique: index.unique, ...pathOf(index) };
    });
    const [keys, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
    const records = [];
    for (let at = 0; at < keys.length; at++) {
      const path = `${database.name}.${name}`;
      const key = store.keyPath === null ? await toldOf('key', keys[at], path) : {};
      records.push({ ...key, ...await toldOf('value', values[at], path) });
    }
    return { ...facts, indexes, records };
  };
  const takeDatabase = async ({ name, version }) => {
    const database = await done(indexedDB.open(name));
    try {
      const stores = [];
      for (const each of database.objectStoreNames) stores.push(await takeStore(database, each));
      return { name, version: database.version, stores };
    } finally {
      database.close();
    }
  };

  const keyPath = (told) => told.keyPathArray ?? told.keyPath ?? null;
  const putDatabase = async ({ name, version, stores }) => {
    const request = indexedDB.open(name, version);
    request.onupgradeneeded = () => {
      for (const told of stores) {
        const options = { keyPath: keyPath(told), autoIncrement: told.autoIncrement };
        const store = request.result.createObjectStore(told.name, options);
        for (const index of told.indexes)
          store.createIndex(index.name, keyPath(index), { multiEntry: index.multiEntry, unique: index.unique });
      }
    };
    const database = await done(request);
    try {
      if (!stores.length) return;
      const change = database.transaction(stores.map((each) => each.name), 'readwrite');
      const end = written(change);
      for (const told of stores)
        for (const record of told.records) {
          const value = record.valueEncoded != null ? decode(record.valueEncoded, new Map()) : record.value ?? null;
          const key = record.keyEncoded != null ? decode(record.keyEncoded, new Map()) : record.key ?? undefined;
          change.objectStore(told.name).put(value, key);
        }
      await end;
    } finally {
      database.close();
    }
  };

  const items = () => Object.fromEntries([...Array(localStorage.length).keys()].map((at) => {
    const name = localStorage.key(at);
    return [name, localStorage.getItem(name)];
  }));

  return {
    take: async () => {
      const databases = [];
      for (const each of await indexedDB.databases()) databases.push(await takeDatabase(each));
      databases.sort((a, b) => a.name < b.name ? -1 : 1);
      return JSON.stringify({ origin: location.origin, local: items(), databases });
    },
    put: async ({ local, databases }) => {
      for (const [name, value] of Object.entries(local)) localStorage.setItem(name, value);
      for (const each of databases) await putDatabase(each);
      return JSON.stringify({ origin: location.origin });
    },
  };
})()
