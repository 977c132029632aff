// The checks that public detector pages make, for documents and workers: each name with whether a
// person's Chrome would pass it, or what is wrong.
const NATIVE = name => `function ${name}() { [native code] }`;
const inDocument = typeof document !== 'undefined';

const stackOf = body => { try { body(); return 'no error'; } catch (error) { return error.stack; } };
const frames = body => stackOf(body).split('\n').slice(1).map(line => line.replace(/:\d+:\d+/g, ''));

let frame;
const elsewhere = () => {
  frame ??= document.body.appendChild(document.createElement('iframe'));
  return frame.contentWindow.Function.prototype.toString;
};

// What is wrong with a function, beside a *sibling* that nobody has touched.
const lies = (fn, name, sibling) => {
  const found = [];
  const say = (what, so) => { if (!so) found.push(`${name}: ${what}`); };
  say('toString', Function.prototype.toString.call(fn) === NATIVE(name));
  say('own toString', fn.toString() === NATIVE(name) && fn + '' === NATIVE(name));
  say('its name', fn.name === name);
  say('properties', JSON.stringify(Object.getOwnPropertyNames(fn)) ===
                    JSON.stringify(Object.getOwnPropertyNames(sibling)));
  say('prototype', !('prototype' in fn) && Object.getPrototypeOf(fn) === Function.prototype);
  say('constructor', /TypeError: .* is not a constructor/.test(stackOf(() => new fn())));
  say('stack of an illegal call', JSON.stringify(frames(() => fn.call({}))) ===
                                  JSON.stringify(frames(() => sibling.call({}))));
  say('stack of a call to null', JSON.stringify(frames(() => fn.call(null))) ===
                                 JSON.stringify(frames(() => sibling.call(null))));
  say('stack of an heir', JSON.stringify(frames(() => Object.create(fn).toString())) ===
                          JSON.stringify(frames(() => Object.create(sibling).toString())));
  if (inDocument) say('toString of another document', elsewhere().call(fn) === NATIVE(name));
  return found;
};

const flags = ({writable, enumerable, configurable}) => [writable, enumerable, configurable].join();
const descriptor = (owner, name) => Object.getOwnPropertyDescriptor(owner, name);

const drawn = kind => {
  const canvas = inDocument ? document.createElement('canvas') : new OffscreenCanvas(1, 1);
  const gl = canvas.getContext(kind);
  const names = gl.getExtension('WEBGL_debug_renderer_info');
  return [gl.getParameter(names.UNMASKED_VENDOR_WEBGL), gl.getParameter(names.UNMASKED_RENDERER_WEBGL)];
};

// What all documents and workers of one browser say alike.
const told = async () => {
  const {userAgent, appVersion, platform, languages, language, hardwareConcurrency} = navigator;
  const names = ['architecture', 'bitness', 'fullVersionList', 'model', 'platformVersion'];
  const hints = await navigator.userAgentData.getHighEntropyValues(names);
  return JSON.stringify({userAgent, appVersion, platform, languages, language, hardwareConcurrency,
    hints, webgl: drawn('webgl'), webgl2: drawn('webgl2'), memory: navigator.deviceMemory});
};

const everywhere = async () => {
  const agent = navigator.userAgent;
  const major = /Chrome\/(\d+)/.exec(agent)[1];
  const data = navigator.userAgentData;
  const hints = await data.getHighEntropyValues(['fullVersionList', 'platformVersion']);
  const version = list => list.find(one => one.brand === 'Google Chrome')?.version.split('.')[0];
  const gl = self.WebGLRenderingContext.prototype, gl2 = self.WebGL2RenderingContext.prototype;
  const mark = {Windows: 'Win32', macOS: 'MacIntel', Linux: 'Linux x86_64', Android: 'Linux armv81'};
  return {
    agent: !/Headless/.test(agent + navigator.appVersion),
    brands: version(data.brands) === major && data.brands.length === 3,
    hints: version(hints.fullVersionList) === major && hints.fullVersionList.length === 3,
    platform: mark[data.platform] === navigator.platform,
    languages: navigator.languages.length > 1 && navigator.languages[0] === navigator.language,
    webgl: !/SwiftShader|llvmpipe|Google\)/.test(drawn('webgl') + drawn('webgl2')),
    cores: navigator.hardwareConcurrency >= 4,
    lies: [
      ...lies(gl.getParameter, 'getParameter', gl.getExtension),
      ...lies(gl2.getParameter, 'getParameter', gl2.getExtension),
      ...lies(Function.prototype.toString, 'toString', Function.prototype.toString),
      ...(flags(descriptor(gl, 'getParameter')) === flags(descriptor(gl, 'getExtension'))
        ? [] : ['getParameter: descriptor']),
    ].join('; ') || true,
  };
};

const inPages = async () => {
  const gate = descriptor(Navigator.prototype, 'webdriver');
  let read = 0;
  const bait = new Error();
  Object.defineProperty(bait, 'stack', {get() { read += 1; return ''; }});
  console.debug(bait);
  const asked = (await navigator.permissions.query({name: 'notifications'})).state;
  const box = document.body.appendChild(document.createElement('div'));
  box.style = 'width: 100px; height: 100px; overflow: scroll';
  const bar = box.offsetWidth - box.clientWidth;
  box.remove();
  const shown = descriptor(window, 'chrome');
  const plugins = navigator.plugins, types = navigator.mimeTypes;
  const pdf = plugins[0];
  return {
    webdriver: navigator.webdriver === false && 'webdriver' in navigator && !!gate.get &&
      gate.get.toString() === NATIVE('get webdriver'),
    'own properties': Object.getOwnPropertyNames(navigator).length === 0,
    plugins: plugins.length === 5 && plugins instanceof PluginArray && navigator.pdfViewerEnabled &&
      Object.prototype.toString.call(plugins) === '[object PluginArray]' &&
      pdf instanceof Plugin && String(pdf) === '[object Plugin]' && pdf.name === 'PDF Viewer' &&
      plugins.item(0) === pdf && plugins.namedItem('PDF Viewer') === pdf && plugins['PDF Viewer'] === pdf &&
      plugins.item(9) === null && [...plugins].length === 5 && pdf.length === 2 &&
      JSON.stringify(Object.keys(plugins)) === '["0","1","2","3","4"]' && '0' in plugins,
    'mime types': types.length === 2 && types instanceof MimeTypeArray &&
      types['application/pdf'] instanceof MimeType && types[0].suffixes === 'pdf' &&
      types[0].enabledPlugin === pdf && pdf[0].type === 'application/pdf',
    permissions: Notification.permission === (asked === 'prompt' ? 'default' : asked),
    chrome: !!window.chrome && typeof chrome.csi === 'function' && !('runtime' in chrome) &&
      typeof chrome.loadTimes().requestTime === 'number' && chrome.app.isInstalled === false &&
      flags(shown) === 'true,true,true' && chrome.csi.toString() === 'function () { [native code] }',
    pointer: matchMedia('(hover: hover) and (pointer: fine)').matches,
    screen: screen.width >= outerWidth && screen.height >= outerHeight &&
      outerWidth >= innerWidth && outerHeight > innerHeight && screen.height > outerHeight &&
      screen.availHeight <= screen.height && screen.colorDepth === 24,
    scrollbars: bar > 0,
    debugger: read === 0,
    'lies of a page': [
      ...lies(descriptor(Notification, 'permission').get, 'get permission',
        descriptor(Notification, 'maxActions').get).filter(one => !/illegal|null|heir/.test(one)),
      ...lies(descriptor(Navigator.prototype, 'plugins').get, 'get plugins',
        descriptor(Navigator.prototype, 'cookieEnabled').get),
      ...lies(descriptor(PluginArray.prototype, 'length').get, 'get length',
        descriptor(NodeList.prototype, 'length').get),
      ...lies(PluginArray.prototype.item, 'item', NodeList.prototype.item),
      ...lies(descriptor(window, 'outerHeight').get, 'get outerHeight',
        descriptor(window, 'outerWidth').get).filter(one => !/illegal|null/.test(one)),
    ].join('; ') || true,
  };
};

self.detect = async () =>
  ({...await everywhere(), ...(inDocument ? await inPages() : {}), told: await told()});
