// The AsynDM panel: draws the curve, shows the controls that the region uses, and has the lines about the prompt's objects
// and the mask kept up to date. The panel's own events call in here (asyndm_ext/ui/panel.py), so nothing polls and nothing
// outside the panel is touched.

var asyndm = (function() {
    const WAIT = 350; // milliseconds after the last keystroke
    const LEFT = 8, TOP = 8, WIDTH = 184, HEIGHT = 104; // the plot's box within its drawing
    const DRAG = 6; // pixels from where on a press is no click any more
    const timers = {};
    const focused = {}; // by panel, the name of the chip that was used, until its line is there anew
    const moving = {over: false, chip: null, target: null};

    function element(prefix, name) {
        return gradioApp().querySelector('#' + prefix + name);
    }

    function isOpen(prefix) {
        const checkbox = element(prefix, 'enabled-checkbox input');
        return checkbox !== null && checkbox.checked;
    }

    /** Until which parts of the steps the objects lag, as their chips say; all of them where none is known. */
    function ends(prefix) {
        const slow = gradioApp().querySelectorAll('#' + prefix + 'chips .asyndm-on');
        const found = new Set(Array.from(slow, (chip) => Number(chip.dataset.until || 1)));
        return found.size ? [...found] : [1];
    }

    /** A clock that follows the curve until some point and goes straight to the end from there. */
    function released(heights, end) {
        const last = heights.length - 1;
        const from = Math.round(end * last);
        return heights.map((height, i) => i <= from || from >= last ? height : heights[from] * (last - i) / (last - from));
    }

    /** Draws the objects' curves and the straight line of the rest. */
    function plot(prefix, strength, curve) {
        const figure = element(prefix, 'plot');
        if (!figure) return;
        const full = JSON.parse(figure.dataset.curves)[curve];
        const w = Number(strength);
        if (!full || !(w >= 0 && w <= 1)) return;
        const straight = full.map((_, i) => 1 - i / (full.length - 1));
        const curved = full.map((height, i) => (1 - w) * straight[i] + w * height);
        const clocks = ends(prefix).map((end) => released(curved, end));
        const slow = curved.map((_, i) => Math.max(...clocks.map((heights) => heights[i])));
        const points = (heights) => heights.map((height, i) => {
            const x = LEFT + WIDTH * i / (heights.length - 1);
            return x.toFixed(1) + ' ' + (TOP + HEIGHT * (1 - height)).toFixed(1);
        });
        const line = (heights) => 'M' + points(heights).join('L');
        figure.querySelector('.asyndm-rest').setAttribute('d', line(straight));
        figure.querySelector('.asyndm-slow').setAttribute('d', clocks.map(line).join(''));
        figure.querySelector('.asyndm-gap').setAttribute('d', line(slow) + 'L' + points(straight).reverse().join('L') + 'Z');
        const lag = Math.max(...slow.map((height, i) => height - straight[i]));
        figure.querySelector('.asyndm-lag').textContent = Math.round(100 * lag + 1e-6) + ' %';
    }

    /** Shows the controls that a region uses; the style sheet does it. */
    function show(prefix, region) {
        const panel = element(prefix, 'enabled');
        if (panel && region) panel.dataset.asyndmRegion = region;
    }

    /** Has the objects of the prompt looked for, and said what the mask is, soon. */
    function look(prefix) {
        clearTimeout(timers[prefix]);
        timers[prefix] = setTimeout(function() {
            if (isOpen(prefix)) element(prefix, 'find').click();
        }, WAIT);
    }

    /** The Objects field says this now, and the chip of this name has the focus once its line is there anew. */
    function write(prefix, objects, name) {
        const field = element(prefix, 'objects textarea, #' + prefix + 'objects input');
        if (!field) return;
        focused[prefix] = name;
        field.value = objects;
        updateInput(field);
    }

    /** A click on a chip: its text becomes that of the Objects field. */
    function choose(prefix, event) {
        const chip = event.target.closest('.asyndm-chip');
        if (!chip || (moving.over && event.detail)) return; // the end of a drag; a key's click has no detail
        if (chip.dataset.until === undefined && chip.dataset.name !== '>') chip.classList.toggle('asyndm-on'); // at once
        write(prefix, chip.dataset.objects, chip.dataset.name);
    }

    /** The chip that is drawn at a place takes this one's; past the first and the last there is none. */
    function move(prefix, chip, place) {
        const objects = JSON.parse(chip.dataset.moved)[place];
        if (objects === undefined || place === Number(chip.dataset.place)) return;
        write(prefix, objects, chip.dataset.name);
    }

    /** Arrow keys move a chip by one place. */
    function onArrow(prefix, event) {
        const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
        const chip = event.target.closest('[data-moved]');
        if (!by || !chip || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        move(prefix, chip, Number(chip.dataset.place) + by);
    }

    /** Lets go of the chip that is being dragged. */
    function drop() {
        const {chip, target} = moving;
        chip?.classList.remove('asyndm-dragged');
        if (chip) chip.style.transform = '';
        target?.classList.remove('asyndm-target');
        moving.chip = moving.target = null;
    }

    /** A chip follows mouse, pen or finger to another one's place. */
    function makeMovable(prefix, line) {
        line.addEventListener('keydown', (event) => onArrow(prefix, event));
        line.addEventListener('pointerdown', function(event) {
            const chip = event.target.closest('[data-moved]');
            drop();
            Object.assign(moving, {over: false, chip: event.button === 0 ? chip : null, x: event.clientX, y: event.clientY});
        });
        line.addEventListener('pointermove', function(event) {
            const {chip} = moving;
            if (!chip) return;
            if (!event.buttons) return drop(); // let go of outside of the line
            const x = event.clientX - moving.x, y = event.clientY - moving.y;
            if (!moving.over && Math.hypot(x, y) < DRAG) return; // a click with an unsteady hand
            if (!moving.over) {
                moving.over = true; // the click that follows is none
                chip.setPointerCapture(event.pointerId);
                chip.classList.add('asyndm-dragged');
            }
            chip.style.transform = `translate(${x}px, ${y}px)`;
            const below = line.getRootNode().elementFromPoint(event.clientX, event.clientY);
            moving.target?.classList.remove('asyndm-target');
            moving.target = line.contains(below) ? below.closest('[data-moved]') : null;
            moving.target?.classList.add('asyndm-target');
        });
        line.addEventListener('pointerup', function() {
            const {chip, target, over} = moving;
            drop();
            if (chip && over && target) move(prefix, chip, Number(target.dataset.place));
        });
        line.addEventListener('pointercancel', drop);
        new MutationObserver(function() {
            const name = focused[prefix];
            const chips = Array.from(line.querySelectorAll('.asyndm-chip'));
            if (name === undefined || !chips.length || line.contains(document.activeElement)) return;
            delete focused[prefix]; // once: what is redrawn later takes no focus
            if (![null, document.body].includes(document.activeElement)) return; // the user has gone on
            (chips.find((chip) => chip.dataset.name === name) ?? chips[0]).focus({preventScroll: true});
        }).observe(line, {childList: true, subtree: true});
    }

    /** Lights the preset that the panel's settings equal, and says what it has earned. */
    function mark(prefix, settings) {
        const line = element(prefix, 'presets');
        if (!line) return;
        const defaults = JSON.parse(line.querySelector('[data-defaults]').dataset.defaults);
        const value = (name) => settings[name] ?? defaults[name];
        const same = (wanted, value) => typeof wanted === 'number' ? Math.abs(wanted - Number(value)) < 1e-6 : wanted === value;
        line.querySelectorAll('[data-preset]').forEach(function(button) {
            const wanted = JSON.parse(button.dataset.preset);
            const isIt = Object.keys(wanted).every((name) => same(wanted[name], value(name)));
            button.classList.toggle('asyndm-on', isIt);
            button.setAttribute('aria-pressed', String(isIt));
            line.querySelector('[data-says="' + button.dataset.press + '"]').hidden = !isIt;
        });
    }

    /** A click on a button of the presets' line or of the mask's. */
    function press(prefix, event) {
        const button = event.target.closest('[data-press]');
        if (button) element(prefix, button.dataset.press).click();
    }

    /** Has the mask read again when its picture is taken away: gradio 3 tells nobody. */
    function watchMask(prefix) {
        const control = element(prefix, 'mask_picture');
        const again = element(prefix, 'mask_again');
        if (!control || !again) return;
        let there = false;
        new MutationObserver(function() {
            const before = there;
            there = control.querySelector('canvas') !== null;
            if (before && !there) setTimeout(() => again.click(), 0);
        }).observe(control, {childList: true, subtree: true});
    }

    /** Tells screen readers which help belongs to a control, and what gradio 3's boxes of numbers are. */
    function describe(prefix) {
        element(prefix, 'enabled')?.querySelectorAll('.asyndm-help[id]').forEach(function(help) {
            const control = gradioApp().querySelector('#' + help.id.slice(0, -'_help'.length));
            control?.querySelectorAll('input, textarea').forEach(function(field) {
                field.setAttribute('aria-describedby', help.id);
                const label = control.querySelector('[data-testid=block-info]');
                if (label && field.type === 'number' && !field.getAttribute('aria-label')) {
                    field.setAttribute('aria-label', label.textContent.trim());
                }
            });
        });
    }

    function setUp(prefix) {
        describe(prefix);
        const line = element(prefix, 'chips');
        if (!line) return;
        line.addEventListener('click', (event) => choose(prefix, event));
        makeMovable(prefix, line);
        ['presets', 'mask_line'].forEach(function(name) {
            element(prefix, name)?.addEventListener('click', (event) => press(prefix, event));
        });
        watchMask(prefix);
        const value = (name) => element(prefix, name)?.value;
        show(prefix, value('region input'));
        mark(prefix, {
            strength: value('strength input[type=number]'),
            curve: value('curve input'),
            region: value('region input'),
            order: value('order input'),
        });
        const draw = function() {
            const strength = element(prefix, 'strength input[type=number]');
            const curve = element(prefix, 'curve input');
            if (strength && curve) plot(prefix, strength.value, curve.value);
        };
        draw();
        new MutationObserver(draw).observe(line, {childList: true, subtree: true}); // the chips know the order
        look(prefix);
    }

    // A panel's elements are named by its host; what they have in common is the beginning of the plot's name.
    onUiLoaded(() => gradioApp().querySelectorAll('.asyndm-plot').forEach((plot) => setUp(plot.id.slice(0, -'plot'.length))));

    return {plot, look, show, mark};
})();
