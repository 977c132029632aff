// What no switch and no command of CDP can make right. Runs in every document and worker before
// their own scripts. A native function is wrapped in a Proxy, which has its name, length and
// prototype chain; only `toString` would tell (it leaves out the name), so that is wrapped as well.
(facts => {
  const {apply, get: read, getOwnPropertyDescriptor: describe, defineProperty: define} = Reflect;
  const names = Object.create(null);
  const NAMELESS = 'function () { [native code] }';

  // A server that takes a session over says it again to documents that have heard it.
  const probe = new Proxy({toString() {}}.toString, {});
  if (Function.prototype.toString.call(probe) !== NAMELESS) return;

  // The stack that the native function's own error would have: without the frames of a wrapper.
  const cleaned = (error, self) => {
    if (typeof error?.stack !== 'string') return error;
    const limit = Error.stackTraceLimit;
    Error.stackTraceLimit = limit + 3;
    const here = new Error().stack.split('\n    at ').slice(3);
    Error.stackTraceLimit = limit;
    const parts = error.stack.split('\n    at ');
    const ours = parts.findIndex(line => line.startsWith('Object.apply (<anonymous>:'));
    if (ours > 0) {
      // The heirs of a function are Functions, and those of a Proxy only Objects.
      if (typeof self === 'object' && self instanceof Function)
        parts[1] = parts[1].replace(/^Object\.toString/, 'Function.toString');
      const frames = [...parts.slice(1, ours), ...here].slice(0, limit);
      error.stack = [parts[0], ...frames].join('\n    at ');
    }
    return error;
  };
  const wrapped = (native, answer) => {
    names[native.name] = true;
    return new Proxy(native, {
      apply(target, self, args) {
        let value;
        try {
          value = apply(target, self, args);
        } catch (error) {
          throw cleaned(error, self);
        }
        return answer(value, self, args);
      },
    });
  };
  const method = (owner, name, answer) => {
    const found = owner && describe(owner, name);
    if (found) define(owner, name, {...found, value: wrapped(found.value, answer)});
  };
  const getter = (owner, name, answer) => {
    const found = owner && describe(owner, name);
    if (found?.get) define(owner, name, {...found, get: wrapped(found.get, answer)});
  };

  // By its name, so that it serves the functions of other documents, too.
  method(Function.prototype, 'toString', (text, self) => {
    const name = text === NAMELESS ? read(self, 'name') : '';
    return names[name] ? `function ${name}() { [native code] }` : text;
  });

  const UNMASKED = {37445: facts.vendor, 37446: facts.renderer};
  for (const kind of ['WebGLRenderingContext', 'WebGL2RenderingContext'])
    method(self[kind]?.prototype, 'getParameter', (value, _, [name]) =>
      typeof value === 'string' && UNMASKED[name] || value);

  // Chromium forgets this one when a page moves to another process, and never tells workers.
  getter((self.Navigator || self.WorkerNavigator).prototype, 'platform', () => facts.platform);

  // A shared worker is told its hints and not its agent.
  if (self.WorkerNavigator) {
    getter(self.WorkerNavigator.prototype, 'userAgent', () => facts.agent);
    getter(self.WorkerNavigator.prototype, 'appVersion', () => facts.agent.replace('Mozilla/', ''));
  }

  const named = (name, answer) => {
    names[name] = true;
    return new Proxy({[name]() {}}[name], {apply: answer});
  };
  const made = () => {
    const app = {isInstalled: false};
    for (const [name, answer] of Object.entries({
      getDetails: () => null,
      getIsInstalled: () => false,
      installState: () => undefined,
      runningState: () => 'cannot_run',
    })) define(app, name, {value: named(name, answer), configurable: true, writable: true});
    app.InstallState =
      {DISABLED: 'disabled', INSTALLED: 'installed', NOT_INSTALLED: 'not_installed'};
    app.RunningState =
      {CANNOT_RUN: 'cannot_run', READY_TO_RUN: 'ready_to_run', RUNNING: 'running'};
    return app;
  };
  // Chromium gives none to a popup whose window this script has looked into while it was empty.
  if (typeof document !== 'undefined' && self.chrome && !('app' in self.chrome))
    self.chrome.app = made();

  if (!facts.shell || typeof document === 'undefined') return;

  getter(self, 'outerHeight', value => value + facts.frame);
  getter(self.Notification, 'permission', value =>
    value === 'denied' && isSecureContext ? 'default' : value);

  const {performance, Date} = self;
  const nameless = body => {
    const bound = function () {}.bind();
    define(bound, 'name', {value: '', configurable: true});
    return new Proxy(bound, {apply: body});
  };
  const begun = performance.timeOrigin;
  const timing = () => performance.getEntriesByType('navigation')[0];
  const loadTimes = () => {
    const at = value => (begun + (value || 0)) / 1000;
    const seen = timing();
    const protocol = seen?.nextHopProtocol || 'unknown';
    const multiplexed = protocol === 'h2' || protocol === 'h3';
    const painted = performance.getEntriesByType('paint')[0];
    return {
      requestTime: at(0),
      startLoadTime: at(0),
      commitLoadTime: at(seen?.responseStart),
      finishDocumentLoadTime: at(seen?.domContentLoadedEventEnd),
      finishLoadTime: at(seen?.loadEventEnd),
      firstPaintTime: painted ? at(painted.startTime) : 0,
      firstPaintAfterLoadTime: 0,
      navigationType: 'Other',
      wasFetchedViaSpdy: multiplexed,
      wasNpnNegotiated: multiplexed,
      npnNegotiatedProtocol: multiplexed ? protocol : 'unknown',
      wasAlternateProtocolAvailable: false,
      connectionInfo: protocol,
    };
  };
  const csi = () => ({
    startE: Math.round(begun),
    onloadT: Math.round(begun + (timing()?.domContentLoadedEventEnd || 0)),
    pageT: performance.now(),
    tran: 15,
  });
  if (!('chrome' in self))
    define(self, 'chrome', {
      value: {loadTimes: nameless(loadTimes), csi: nameless(csi), app: made()},
      configurable: true, enumerable: true, writable: true,
    });

  // The viewer of PDFs, under the names that the standard fixes.
  const types = ['application/pdf', 'text/pdf'];
  const titles = ['PDF Viewer', 'Chrome PDF Viewer', 'Chromium PDF Viewer',
                  'Microsoft Edge PDF Viewer', 'WebKit built-in PDF'];
  const facing = new WeakMap();
  const listed = (face, parts, keys, own) => {
    const shown = new Proxy(face, {
      get: (target, key) => key in own ? own[key] : read(target, key, target),
      has: (target, key) => key in own || key in target,
      ownKeys: () => [...parts.keys()].map(String).concat(keys),
      getOwnPropertyDescriptor: (_, key) => {
        const at = key in own && (keys.includes(key) || /^\d+$/.test(String(key)));
        return at ? {value: own[key], configurable: true, enumerable: !keys.includes(key)} : undefined;
      },
    });
    facing.set(shown, {parts, ...own});
    return shown;
  };
  const looked = (owner, name) => {
    const found = describe(owner, name);
    if (!found) return;
    const native = found.get || found.value;
    names[native.name] = true;
    const body = new Proxy(native, {
      apply(target, self, args) {
        const face = facing.get(self);
        if (face) return found.get ? face[name] : face[name](...args);
        try {
          return apply(target, self, args);
        } catch (error) {
          throw cleaned(error);
        }
      },
    });
    define(owner, name, {...found, [found.get ? 'get' : 'value']: body});
  };
  for (const [kind, parts] of [
    ['PluginArray', ['length', 'item', 'namedItem', 'refresh']], ['MimeTypeArray', ['length', 'item', 'namedItem']],
    ['Plugin', ['name', 'filename', 'description', 'length', 'item', 'namedItem']],
    ['MimeType', ['type', 'suffixes', 'description', 'enabledPlugin']],
  ]) if (self[kind]) for (const part of parts) looked(self[kind].prototype, part);

  if (self.PluginArray && self.navigator.plugins.length === 0) {
    const blank = kind => Object.create(self[kind].prototype);
    const list = (face, parts, label, more) => {
      const own = Object.create(null);
      const keys = parts.map(label);
      parts.forEach((part, at) => { own[at] = part; own[keys[at]] = part; });
      const proto = Object.getPrototypeOf(face);
      const hidden = {
        length: parts.length, item: at => own[at >>> 0] ?? null,
        namedItem: key => keys.includes(String(key)) ? own[key] : null, refresh: () => undefined, ...more,
      };
      const shown = listed(face, parts, keys, own);
      facing.set(shown, hidden);
      for (const key of Object.keys(hidden))
        if (describe(proto, key)?.get) define(own, key, {value: hidden[key]});
      own[Symbol.iterator] = proto[Symbol.iterator];
      return shown;
    };
    const plain = (kind, own) => {
      const face = blank(kind);
      facing.set(face, own);
      return face;
    };
    const plugins = [];
    const mimes = types.map(type => plain('MimeType', {
      type, suffixes: 'pdf', description: 'Portable Document Format',
      get enabledPlugin() { return plugins[0]; },
    }));
    for (const name of titles)
      plugins.push(list(blank('Plugin'), mimes, one => one.type, {
        name, filename: 'internal-pdf-viewer', description: 'Portable Document Format',
      }));
    const shown = {
      plugins: list(blank('PluginArray'), plugins, one => one.name, {}),
      mimeTypes: list(blank('MimeTypeArray'), mimes, one => one.type, {}),
      pdfViewerEnabled: true,
    };
    for (const name of Object.keys(shown)) getter(self.Navigator.prototype, name, () => shown[name]);
  }
})
