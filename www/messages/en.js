/** What the drawing page's scripts say in English. Arguments that are figures come as they are to be read. */

/** @typedef {import('../browser-diffusion.js').DiffusionErrorCode} Code */

/** @param {number} count @param {string} one @param {string} many */
const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

export const messages = {
  // ------------------------------------------------------------------------------------------ figures
  'time.ms': (/** @type {number} */ ms) => `${ms} ms`,
  'time.s': (/** @type {string} */ seconds) => `${seconds} s`,
  'time.min': (/** @type {number} */ minutes, /** @type {number} */ seconds) => `${minutes} min ${seconds} s`,
  'time.h': (/** @type {number} */ hours, /** @type {number} */ minutes) => `${hours} h ${minutes} min`,
  'time.left': (/** @type {string} */ time) => `${time} left`,
  'step.title': (/** @type {number} */ step, /** @type {number} */ total) => `Step ${step} of ${total}`,
  'step.detail': (/** @type {number} */ timestep, /** @type {string} */ sigma) =>
    `timestep ${timestep} · noise level σ ${sigma}`,
  'step.noise': '∞ (nothing but noise)',
  'file.picture': 'picture',
  'canvas.none': 'This browser gives no 2D canvas.',

  // ------------------------------------------------------------------------------------------- errors
  'error.title': 'Something went wrong',
  'error.title.webgpu-unavailable': 'No GPU to draw with',
  'error.title.unsupported-model': 'This model cannot be drawn with yet',
  'error.title.bad-checkpoint': 'The model’s files are damaged or incomplete',
  'error.title.network': 'The model could not be fetched',
  'error.title.integrity': 'The model arrived damaged',
  'error.title.quota': 'No room left to keep the model',
  'error.title.out-of-memory': 'Too big for this GPU',
  'error.title.device-lost': 'The GPU stopped answering',
  'error.title.invalid-option': 'This setting does not work',
  'error.title.aborted': 'Stopped',
  // What the engine says is English and says what to do. Elsewhere that stands here, and what the engine says is folded
  // below it.
  'error.details': '',
  'error.advice': (/** @type {Code | undefined} */ _code, /** @type {string} */ _said) => '',

  // ------------------------------------------------------------------------------------------ the form
  'field.wrong': (/** @type {string} */ field, /** @type {string} */ message) => `${field}: ${message}`,
  'field.seed': 'a whole number, or nothing for a random one.',
  'field.missing': 'a number is needed here.',
  'field.number': 'that is no number.',
  'field.least': (/** @type {string} */ least) => `at least ${least}.`,
  'field.most': (/** @type {string} */ most) => `at most ${most}.`,
  'field.step': (/** @type {string} */ step, /** @type {string} */ from) =>
    (Number(from) ? `in steps of ${step}, from ${from}.` : `a multiple of ${step}.`),
  'settings.learnt': (/** @type {number} */ size) => `: this one ${size} × ${size}`,
  'settings.own': (/** @type {string} */ sampler) => (sampler ? `${sampler}, the model’s own` : 'the model’s own'),
  'settings.eta': (/** @type {number | undefined} */ eta) =>
    `How much of the noise is new at each step; usual for this sampler: ${eta ?? 'none'}.`,
  'settings.ownSampler': 'The model’s own sampler',
  'settings.plain': (/** @type {string} */ sampler) =>
    `${sampler} has nothing more to turn. Euler, Euler a and DDIM do.`,
  'levels.hidden': (/** @type {string} */ names) => `Also set, but out of sight here: ${names}.`,
  'recipe.text': (/** @type {any} */ { name, kind, what, by, steps, guidance, sampler }) =>
    `${name} is ${kind === 'LCM' ? 'an' : 'a'} ${kind} ${what}, by its ${by}. Set for it: ` +
    `${counted(steps, 'step', 'steps')}, guidance ${guidance}${guidance > 1 ? '' : ' (off)'}, sampler ${sampler}.`,
  'recipe.model': 'model',
  'recipe.name': 'name',
  'recipe.pipeline': 'pipeline',
  'recipe.keys': 'tensors',
  'taken.noModel': (/** @type {string} */ model) => ` It was drawn with ${model}, which this page does not have.`,
  'taken.files': (/** @type {string} */ files) =>
    ` It needs ${files}: the rows for LoRAs, ControlNets and IP-Adapters ask for the files.`,
  'taken.controls': ' What its ControlNets were shown is not in it: choose that again.',
  'taken.likeness': ' The pictures that its IP-Adapters saw are not in it: choose them again.',

  // ------------------------------------------------------------------------------------------- words
  'prompts.use': (/** @type {string} */ prompt, /** @type {string} */ negative) => `${prompt} — not: ${negative}`,
  'styles.use': (/** @type {string} */ name) => `Add the style ${name}`,
  'styles.remove': (/** @type {string} */ name) => `Delete the style ${name}`,
  'styles.nameless': 'Give the style a name first.',
  'styles.kept': (/** @type {string} */ name) => `“${name}” is a style now.`,
  'styles.read': (/** @type {number} */ count) => (count === 1 ? '1 style is read.' : `${count} styles are read.`),
  'styles.none': (/** @type {string} */ file) =>
    `${file} holds no styles: its first line has to name the columns “name” and “prompt”.`,
  'styles.noRoom': 'There is no room to keep so many styles in this browser. Those from before are as they were.',
  'styles.open': 'The file ends within quotes: it is no CSV, or a part is missing.',
  'paste.tooLong': (/** @type {string} */ length, /** @type {string} */ most) =>
    `That text has ${length} letters, and a prompt at most ${most}: nothing of it is taken. Paste a part of it.`,
  'words.bringBack': 'Bring the words back',
  'presets.set': (/** @type {string} */ name) => `Set: ${name}.`,
  'presets.back': 'Your settings are back.',
  'presets.nameless': 'Give the preset a name first.',
  'presets.kept': (/** @type {string} */ name) => `“${name}” is a preset now.`,
  'presets.deleted': (/** @type {string} */ name) => `The preset “${name}” is deleted.`,
  'presets.noRoom': 'There is no room to keep so many presets in this browser. Those from before are as they were.',
  'complete.list': 'Completions',
  'complete.count': (/** @type {number} */ count) =>
    `${counted(count, 'completion', 'completions')}: the arrow keys choose, Enter takes.`,
  'tags.none': (/** @type {string} */ file) =>
    `${file} is no list of tags: its lines have to hold name, kind and count.`,
  'tags.read': (/** @type {number} */ count) =>
    `${counted(count, 'tag completes', 'tags complete')} what you type now.`,
  'tags.gone': 'The tags are forgotten.',
  'suggestions.other': 'other ideas',
  'suggestions.all': (/** @type {number} */ count) => `All ${count} things that the small model has learnt`,
  'tokens.token': (/** @type {number} */ id) => `token ${id}`,
  'tokens.weight': (/** @type {string} */ weight) => `weight ${weight}`,
  'tokens.cut': 'not read',
  'tokens.unknown': 'a scrap of a word that the model does not know',
  'tokens.text': (/** @type {number} */ count, /** @type {number} */ chunks) =>
    `${count} tokens${chunks > 1 ? `, read in ${chunks} portions of 75` : ' of 75'}. ` +
    'Bold weighs more, grey less; dashed is a scrap of an unknown word.',

  // ------------------------------------------------------------------------------------------ the model
  'model.loadingSmall': 'Loading the small model …',
  'model.loading': (/** @type {string} */ name) => `Loading ${name} …`,
  'model.fetches': (/** @type {string} */ size) => `fetches ${size} first, once`,
  'model.fetchesUnknown': 'fetches the model first',
  'model.option': (/** @type {string} */ name, /** @type {string} */ size) => `${name}, ${size}`,
  'catalogue.about': (/** @type {string} */ _source, /** @type {string} */ about) => about,
  'cost.download': 'Download',
  'cost.storage': 'Storage',
  'cost.gpu': 'GPU memory',
  'cost.licence': 'Licence',
  'cost.once': (/** @type {string} */ size) => `${size}, once`,
  'cost.nothing': 'nothing: it is kept here',
  'cost.keeps': (/** @type {string} */ keeps, /** @type {string} */ free) => `${keeps}; ${free} are free here`,
  'cost.keepsLoading': (/** @type {string} */ keeps, /** @type {string} */ loading, /** @type {string} */ free) =>
    `${keeps}, while it loads ${loading}; ${free} are free here`,
  'cost.oneAtATime': (/** @type {string} */ size) => `${size}, one part of the model at a time`,
  'cost.fits': 'This browser and this graphics card can do it, as far as they tell.',
  'cost.problem.no-webgpu': 'This browser has no WebGPU, and cannot draw with it.',
  'cost.problem.software': 'This browser draws without a graphics card: each step takes minutes.',
  'cost.problem.storage': 'There is not room enough to keep it: it would be fetched anew at each visit. ' +
    'Free some space, or choose fewer bits.',
  'cost.problem.gpu': 'As far as this graphics card tells, that is more than it has. ' +
    'Choose fewer bits, or as little GPU memory as possible.',
  'download.ready': 'ready',
  'download.preparing': 'all there, preparing the GPU',
  'download.of': (/** @type {string} */ done, /** @type {string} */ all) => `${done} of ${all}`,
  'download.kept': (/** @type {string} */ text) => `${text}, kept from before`,
  'download.rate': (/** @type {string} */ text, /** @type {string} */ rate, /** @type {string} */ left) =>
    `${text} · ${rate}/s · ${left}`,
  'shop.small': 'Small model',
  'shop.aboutSmall': (/** @type {string} */ cost) =>
    `Comes with this page, and draws icons of a hundred things, 128 pixels wide. Download: ${cost}.`,
  'shop.use': 'Draw with it',
  'shop.useOne': (/** @type {string} */ name) => `Draw with it: ${name}`,
  'shop.chosen': 'Is chosen',
  'shop.isChosen': (/** @type {string} */ name) => `${name} is chosen`,
  'gpu.is': (/** @type {string} */ name, /** @type {string} */ size, /** @type {string} */ numbers) =>
    `Your graphics card: ${name}; ${size} in one piece; ${numbers}.`,
  'gpu.unnamed': 'the browser does not say which',
  'gpu.f16': 'computes in 16 bits',
  'gpu.f32': 'computes in 32 bits, which takes longer',
  'gpu.none': 'This browser offers no graphics card to compute on.',
  'kept.none': 'None yet.',
  'kept.used': (/** @type {string} */ usage, /** @type {string} */ quota) =>
    `${usage} used of ${quota} that the browser allows.`,
  'kept.partly': (/** @type {string} */ size) => `${size}, not complete yet; loading it goes on from here`,
  'kept.use': 'Use',
  'kept.useOne': (/** @type {string} */ name) => `Use ${name}`,
  'kept.isModel': (/** @type {string} */ name) => `${name} is the model now.`,
  'kept.delete': 'Delete',
  'kept.deleteOne': (/** @type {string} */ name) => `Delete ${name}`,
  'kept.deleted': (/** @type {string} */ name) => `${name} is deleted.`,
  'kept.agreed': 'The browser will keep the models.',
  'kept.perhaps': 'The browser did not promise to keep them. It may, once you use this page more often.',
  'files.isModel': (/** @type {string} */ what) =>
    `${what}, is the model now. It is read from your disk; nothing is uploaded.`,
  'files.folder': (/** @type {string} */ name) => `The folder ${name}`,
  'files.neither': (/** @type {string} */ name) =>
    `${name} is no checkpoint and no picture: choose a .safetensors or .ckpt file.`,
  'tune.trying': 'Trying what is fastest here …',
  'tune.done': 'What is fastest here is used from now on.',

  // -------------------------------------------------------------------------------------- what is added
  'parts.remove': 'Remove',
  'parts.removeOne': (/** @type {string} */ what, /** @type {number} */ number) => `Remove ${what} ${number}`,
  'parts.fromDisk': (/** @type {string} */ label) => `${label} from disk`,
  'parts.asks': (/** @type {string} */ name) =>
    `The picture was drawn with “${name}”. Choose that file, or type its address.`,
  'parts.word': 'Word',
  'parts.standsFor': 'stands for',
  'parts.aWord': 'word',
  'parts.decoder': 'Decoder',
  'parts.aDecoder': 'decoder',
  'parts.strength': 'Strength',
  'controls.shown': 'is shown',
  'controls.file': 'a picture from disk',
  'controls.start': 'the picture to start from',
  'controls.scribble': 'what I scribble here',
  'controls.picture': 'Picture',
  'controls.sees': 'and sees',
  'controls.asItIs': 'it as it is',
  'controls.canny': 'its edges (canny)',
  'controls.soft': 'soft lines (scribble, soft edge)',
  'controls.mode': 'The picture is (for a ControlNet Union)',
  'controls.noUnion': '(no Union)',
  'controls.openpose': 'a pose (openpose)',
  'controls.depth': 'a depth map',
  'controls.thick': 'thick or soft lines (scribble)',
  'controls.thin': 'thin lines or edges (canny)',
  'controls.normal': 'a normal map',
  'controls.segment': 'a map of things (segment)',
  'controls.tile': 'a picture to refine (tile, ProMax)',
  'controls.repaint': 'black where to paint anew (repaint, ProMax)',
  'controls.low': 'Edges above',
  'controls.high': 'sure above',
  'controls.from': 'from',
  'controls.to': 'to',
  'controls.module': (/** @type {string} */ module) =>
    `It was shown what “${module}” makes of a picture. This page cannot: choose one that is made.`,
  'controls.none': (/** @type {number} */ number, /** @type {string} */ cure) =>
    `ControlNet ${number} is shown no picture yet. ${cure}, or remove it.`,
  'controls.cure.start': 'Choose one under “Start from a picture”',
  'controls.cure.file': 'Choose a file',
  'controls.cure.scribble': 'Scribble one',
  'controls.look': 'Show what it sees',
  'controls.yours': 'Your scribble. Arrow keys move the pen, Space makes a dot, Backspace erases, ' +
    'Shift and arrow keys draw a line.',
  'controls.keys': 'By keyboard: arrow keys move the pen, Space makes a dot, Backspace erases, ' +
    'Shift and arrow keys draw a line.',
  'controls.clear': 'Clear the scribble',
  'controls.edges': 'The edges of the picture',
  'controls.thePicture': 'The picture',
  'likeness.face': 'SD 1.5, Plus, faces',
  'likeness.encoder': 'Image encoder',
  'likeness.pictures': 'Pictures',
  'likeness.noPicture': (/** @type {number} */ number) =>
    `IP-Adapter ${number} sees no picture yet. Choose one or several, or remove it.`,
  'likeness.noEncoder': (/** @type {number} */ number) =>
    `IP-Adapter ${number} has no image encoder yet. Choose the one that it was made with, or remove it.`,
  'start.maskAlone': 'A mask needs a picture to change: choose one first, under “Start from a picture”.',
  'start.back': (/** @type {string} */ more) => `The settings of your picture are back.${more}`,
  'start.fileBack': (/** @type {string} */ file, /** @type {string} */ more) =>
    `The settings of ${file} are back. To start from the picture itself, choose it below.${more}`,
  'start.pasted': (/** @type {string} */ more) => `The settings of that text are here.${more}`,
  'start.isStart': (/** @type {string} */ file) => `${file} is the picture to start from.`,
  'start.unreadable': 'That file is no picture that this browser can read. Choose a PNG, JPEG or WebP.',

  // --------------------------------------------------------------------------------------------- drawing
  'frame.size': (/** @type {number} */ width, /** @type {number} */ height) =>
    `The picture to make: ${width} × ${height} pixels.`,
  'translate.offer':
    'The model learnt from English captions. Your browser can translate your words, on this machine.',
  'translate.fetches':
    'The model learnt from English captions. Your browser can translate your words, on this machine; ' +
    'once, it has to fetch what it needs for that.',
  'translate.working': 'Translating …',
  'translate.fetching': (/** @type {number} */ percent) => `Your browser fetches its translator … ${percent} %`,
  'translate.done': (/** @type {string} */ typed) =>
    `This was “${typed}”. Read what came of it, and change what you like: it is drawn as it stands.`,
  'translate.failed':
    'Your browser could not translate it. Your words stand as they were: try again, or write English.',
  'stay.beside': 'Opens in another tab: what is drawn here goes on.',
  'draw.ready': 'Ready.',
  'draw.readySlow': 'Ready. This browser draws without a graphics card, so it will be slow.',
  'draw.loadStopped': 'Stopped. Generate loads the model again.',
  'draw.notLoaded': 'The model is not loaded.',
  'draw.stopped': 'Stopped.',
  'draw.stoppedAfter': (/** @type {number} */ step) => `Stopped after step ${step}.`,
  'draw.before': (/** @type {string} */ where) => `${where} This is your picture from before.`,
  'draw.none': 'No new picture this time.',
  'draw.drawing': 'Drawing …',
  'draw.drawingOne': (/** @type {number} */ number, /** @type {number} */ all) =>
    `Picture ${number} of ${all}: Drawing …`,
  'draw.reading': 'reading your words',
  'draw.readingFirst': 'reading your words, preparing the GPU',
  'draw.step': (/** @type {number} */ step, /** @type {number} */ total) => `step ${step} of ${total}`,
  'draw.spoken': (/** @type {number} */ percent) => `${percent} % drawn`,
  'draw.painting': 'painting the picture out',
  'draw.done': (/** @type {string} */ time, /** @type {number} */ first, /** @type {number} */ last) =>
    `Done in ${time}. ${first === last ? `Seed ${first}` : `Seeds ${first} to ${last}`}.`,
  'draw.unread': (/** @type {string} */ ends) =>
    ` The model reads about 60 words; what came after was left out: ${ends}`,
  'draw.glaring': ' This looks like a model that predicts another thing than it is taken for: ' +
    'under Models, change “What it predicts”.',
  'draw.quoted': (/** @type {string} */ words) => `“${words}”`,
  'draw.strays': (/** @type {string} */ name, /** @type {number} */ count, /** @type {string} */ some) =>
    ` Of ${name} ${counted(count, 'tensor belongs', 'tensors belong')} to no weight of this model: ${some}.`,
  'draw.wordless': 'A picture without words',
  'draw.detail': (/** @type {number} */ seed, /** @type {string} */ which, /** @type {string} */ size) =>
    `painted out by the decoder · seed ${seed}${which} · ${size} pixels`,
  'draw.which': (/** @type {number} */ number, /** @type {number} */ all) => ` · picture ${number} of ${all}`,
  'draw.grid': (/** @type {number} */ count) => `a grid of ${count} pictures`,
  'enlarge.choose': 'Choose an ESRGAN model (.pth or .safetensors) to enlarge with, under “Bigger”.',
  'enlarge.enlarging': 'Enlarging …',
  'enlarge.done': (/** @type {string} */ size) => `Enlarged to ${size} pixels.`,
  'enlarge.detail': (/** @type {string} */ size) => `enlarged to ${size} pixels`,
  'enlarge.not': 'Not enlarged; your picture is as it was.',
  'wildcards.read': (/** @type {number} */ count) => `${counted(count, 'line is', 'lines are')} kept.`,
  'wildcards.gone': 'The wildcards are forgotten.',
  'wildcards.none': (/** @type {string} */ name) =>
    `${name} is no list of wildcards: it needs a line of text, and a name of letters, digits, spaces and - . / _.`,
  'wildcards.unknown': (/** @type {string} */ name) =>
    `No list is called ${name}: add ${name}.txt under “Styles and tags”, or write the words instead of __${name}__.`,
  'wildcards.round': (/** @type {string} */ name) =>
    `The lines of ${name} lead back to themselves: look into its file.`,
  'variants.tooMany': (/** @type {number} */ most) =>
    `The choices in the prompt make more than ${most} pictures: leave some out.`,
  'grid.words': 'Words',
  'grid.nothing': 'nothing',
  'grid.absent': (/** @type {string} */ first, /** @type {string} */ word) =>
    `“${first}” is not in the prompt, so nothing could be replaced by “${word}”.`,
  'grid.tooMany': (/** @type {number} */ pictures, /** @type {number} */ most) =>
    `That would be ${pictures} pictures; a grid holds ${most} at most.`,
  'grid.choose': 'Choose what changes across or down, and type its values.',
  'grid.nowhere': (/** @type {string} */ part, /** @type {number} */ from, /** @type {number} */ to) =>
    `${part} leads nowhere: the step must go from ${from} to ${to}.`,
  'grid.numbers': 'The values of this axis are numbers such as 3, 5, 8 or 1-9 (+2).',
  'grid.label': (/** @type {string} */ kind, /** @type {string | number} */ value) => `${kind}: ${value}`,
  'queue.grid': (/** @type {string} */ words) => `Grid: ${words}`,
  'queue.wordless': 'a picture without words',
  'queue.remove': 'Remove',
  'queue.removeOne': (/** @type {string} */ words) => `Remove ${words}`,

  // ----------------------------------------------------------------------------------------- the picture
  'picture.label': (/** @type {string} */ title) => `Picture: ${title}`,
  'example.detail': (/** @type {number} */ seed) =>
    `An example, drawn before from seed ${seed}. The slider below shows how it grew out of noise.`,
  'example.label': (/** @type {string} */ prompt) => `An example: ${prompt}`,
  'latents.text': (/** @type {number} */ channels, /** @type {string} */ size) =>
    `The latents, as the UNet sees them: ${channels} channels of ${size} numbers.`,
  'inside.about':
    'While this is open, every drawing tells at each step what went on in the network. Choose a step with the slider.',
  'inside.none':
    'Nothing is known of what is shown: it was drawn while this was closed. Draw again, and each step tells.',
  'inside.costs': 'It costs a little time at each step, one more run of the network to time its blocks, and memory.',
  'inside.cost': (/** @type {string} */ what) => `Looking costs: ${what}.`,
  'inside.timed': (/** @type {string} */ time) => `a step took ${time}`,
  'inside.timedPlain': (/** @type {string} */ time) => `one without looking ${time}`,
  'inside.kept': (/** @type {string} */ size) => `${size} are kept in memory for this picture`,
  'inside.again': 'Close this and open it again to try once more.',
  'inside.input': 'what it was given, xₜ',
  'inside.x0': 'the picture it takes that for, x₀',
  'inside.noise': 'the noise in it, ε: a tile a channel',
  'inside.guidance': 'what your words change',
  'inside.guidanceLong': (/** @type {string} */ length, /** @type {string} */ whole) =>
    `what your words change in that guess: ${length} long, the guess ${whole}. Guidance stretches it.`,
  'inside.words': 'Where each word acts',
  'inside.wordsHint':
    'Its share of the network’s attention, at each place. Empty places behind the words take much of it.',
  'inside.acting': (/** @type {string} */ word, /** @type {number} */ step) => `Where “${word}” acts in step ${step}`,
  'inside.share': (/** @type {string} */ percent) => `${percent} %`,
  'inside.start': '(start)',
  'inside.end': '(end)',
  'inside.padding': '(empty)',
  'inside.blocks': 'Through the network',
  'inside.blocksHint':
    'From top to bottom: what each block made for your words, of its channels the first eight. ' +
    'The line is its share of the time.',
  'inside.in': 'In',
  'inside.down': (/** @type {number} */ number) => `Down ${number}`,
  'inside.middle': 'Middle',
  'inside.up': (/** @type {number} */ number, /** @type {number} */ down) =>
    `Up ${number}, with what down ${down} had`,
  'inside.out': 'Out: its guess',
  'inside.shape': (/** @type {string} */ channels, /** @type {string} */ size) => `${channels} channels of ${size}`,
  'inside.took': (/** @type {string} */ time) => `${time} of the GPU`,
  'how.text': (/** @type {string} */ time) => `took ${time}`,
  'how.noise': (/** @type {number} */ seed) => `seed ${seed}`,
  'how.numbers': (/** @type {number} */ seed, /** @type {string} */ numbers) => `seed ${seed}: ${numbers} numbers`,
  'how.vae': (/** @type {string} */ size, /** @type {string} */ time) => `${size} pixels in ${time}`,
  'uses.settings': (/** @type {string} */ more) => `The settings of the picture are back.${more}`,
  'uses.seed': (/** @type {number} */ seed) => `Seed ${seed} draws the next picture too.`,
  'uses.noSeed': 'The picture does not tell its seed.',
  'uses.mask': 'Where the picture is bright is painted now: there the one to start from will change.',
  'uses.link': 'The link is copied. It holds the words and the settings, but no picture and no file of yours.',
  'uses.linkShown':
    'The link is this page’s address now. It holds the words and the settings, but no picture and no file.',
  'share.not': 'The system did not take the picture. Save it instead.',
  'compare.choose': (/** @type {string} */ title) =>
    `“${title}” is the first. Choose another of your pictures, and both are shown.`,
  'compare.share': (/** @type {number} */ percent) => `${percent} % of the first`,
  'compare.model': 'Model',
  'history.show': (/** @type {string} */ title, /** @type {string} */ detail) => `Show ${title}, ${detail}`,
  'history.showStarred': (/** @type {string} */ title, /** @type {string} */ detail) =>
    `Show ${title}, ${detail}, starred`,
  'history.star': '☆ Star',
  'history.starred': '★ Starred',
  'history.nothing': 'No picture here has all these words.',
  'history.nothingStarred': 'No picture here has a star and all these words.',
  'history.count': (/** @type {number} */ count, /** @type {string} */ size) =>
    `${counted(count, 'picture', 'pictures')}, ${size}.`,
  'history.usage': (/** @type {string} */ usage, /** @type {string} */ quota) =>
    ` Of ${quota} that the browser allows this page, ${usage} are used, by models too. ` +
    'Where that runs short, the oldest pictures without a star go first.',
  'history.dropped': (/** @type {number} */ count) =>
    (count === 1 ? 'Room is short: the oldest picture without a star was deleted to keep the new one.'
      : `Room is short: the ${count} oldest pictures without a star were deleted to keep the new one.`),
  'history.noRoom':
    'There is no room to keep the new picture: it is here until you close the page. Save it, or delete others.',
  'history.notKept':
    'This browser keeps no pictures here: they are gone when you close the page. Save what you want to keep.',
  'history.deleted': (/** @type {string} */ title) => `“${title}” is deleted.`,
  'history.back': (/** @type {string} */ title) => `“${title}” is back.`,
  'history.gone': 'That picture is not there any more: it was deleted elsewhere, in another tab perhaps.',
  'history.packing': 'Packing …',
  'history.packed': (/** @type {number} */ count) =>
    (count === 1 ? '1 picture is packed.' : `${count} pictures are packed.`),
  'history.tooLarge': 'That is more than a zip archive holds, 4 GB. Search for a part of them first.',
  'history.archive': 'pictures.zip',
  'history.aborted': 'The browser stopped writing.',
};
