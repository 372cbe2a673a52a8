// Compare: when the pictures of a job are in the gallery, each one is shown below it with its plain one, and a slider
// between them (asyndm_ext/ui/compared.py). Which belong together is told by their infotexts, which the page has anyway.

var asyndmCompare = (function() {
    const PLAIN = 'AsynDM: plain picture for comparison'; // asyndm_ext/ui/infotext.py
    const WAIT = 250; // milliseconds after the gallery's last change
    const VISIBLE = 8; // of 255 levels: smaller differences count as none
    const SIDE = 768; // pictures are looked at no larger than this
    const tabs = {};

    function sources(tab) {
        const small = tab.gallery.querySelectorAll('.thumbnails img');
        const all = small.length ? small : tab.gallery.querySelectorAll('.thumbnail-item img');
        return Array.from(all, (picture) => picture.src);
    }

    /** Places of pictures in the gallery: with AsynDM, and its plain one. A WebUI may put masks behind each picture. */
    function pairs(info, count) {
        const texts = info.infotexts ?? [], first = info.index_of_first_image ?? 0;
        const plain = [...texts.keys()].filter((i) => texts[i].split('\n').pop().includes(PLAIN));
        if (!plain.length) return [];
        const each = 1 + (count - texts.length) / (plain[plain.length - 1] + 1 - first);
        if (!Number.isInteger(each) || each < 1) return [];
        return plain.map((place, i) => [first + i * each, first + (place - first) * each]);
    }

    /** The part of the pixels that look different, or null where the page may not read them. */
    function difference(one, other) {
        const scale = Math.min(1, SIDE / Math.max(one.naturalWidth, one.naturalHeight));
        const width = Math.max(1, Math.round(one.naturalWidth * scale));
        const height = Math.max(1, Math.round(one.naturalHeight * scale));
        const [a, b] = [one, other].map(function(picture) {
            const pen = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
            pen.drawImage(picture, 0, 0, width, height);
            return pen.getImageData(0, 0, width, height).data;
        });
        let different = 0;
        for (let i = 0; i < a.length; i += 4) {
            const most = Math.max(Math.abs(a[i] - b[i]), Math.abs(a[i + 1] - b[i + 1]), Math.abs(a[i + 2] - b[i + 2]));
            if (most > VISIBLE) different++;
        }
        return different / (width * height);
    }

    async function draw(tab) {
        const [after, before] = ['after', 'before'].map((kind) => tab.place.querySelector('.asyndm-' + kind));
        const number = tab.at;
        [after.src, before.src] = tab.pairs[number];
        tab.place.querySelector('.asyndm-pairs').hidden = tab.pairs.length < 2;
        tab.place.querySelector('.asyndm-pairs output').textContent = `${number + 1} / ${tab.pairs.length}`;
        let part = null;
        try {
            await Promise.all([after.decode(), before.decode()]);
            if (number !== tab.at) return; // another pair has been chosen meanwhile
            const box = tab.place.querySelector('.asyndm-compare');
            box.style.aspectRatio = `${after.naturalWidth} / ${after.naturalHeight}`;
            box.style.setProperty('--shape', after.naturalWidth / after.naturalHeight);
            part = difference(after, before);
        } catch (error) { // then there are only the pictures
            if (number !== tab.at) return;
        }
        const percent = part === null ? '' : part > 0 && part < 0.01 ? '< 1 %' : Math.round(100 * part) + ' %';
        tab.place.querySelector('.asyndm-differ').hidden = part === null;
        tab.place.querySelector('.asyndm-differ output').textContent = percent;
        tab.place.querySelector('.asyndm-same').hidden = part !== 0;
    }

    function turn(tab, to) {
        tab.at = (to + tab.pairs.length) % tab.pairs.length;
        draw(tab);
    }

    /** Shows what there is to compare among a tab's pictures, or nothing; the tab's button calls it. */
    function show(name, info) {
        const tab = tabs[name], pictures = sources(tab);
        let found = [];
        try {
            found = pairs(JSON.parse(info), pictures.length);
        } catch { // no job yet
        }
        tab.places = found;
        tab.pairs = found.map((pair) => pair.map((place) => pictures[place]));
        // gradio 3 gives the same id to two elements, one within the other.
        gradioApp().querySelectorAll('#' + tab.place.id).forEach(
            (one) => one.toggleAttribute('data-filled', tab.pairs.length > 0));
        if (tab.pairs.length) turn(tab, 0);
    }

    /** The pair of the picture that is chosen in the gallery. */
    function follow(tab) {
        const all = Array.from(tab.gallery.querySelectorAll('.thumbnails .thumbnail-item'));
        const chosen = all.findIndex((one) => one.classList.contains('selected'));
        const pair = (tab.places ?? []).findIndex((places) => places.includes(chosen));
        if (pair >= 0 && pair !== tab.at) turn(tab, pair);
    }

    function changed(tab) {
        const now = sources(tab).join(' ');
        if (now !== tab.seen) {
            tab.seen = now;
            tab.button.click();
        } else {
            follow(tab);
        }
    }

    function setUp(name) {
        const [gallery, place, button] = [`${name}_gallery`, `asyndm_compared_${name}`, `asyndm_compare_${name}`].map(
            (id) => gradioApp().querySelector('#' + id));
        if (!gallery || !place || !button) return;
        const tab = tabs[name] = {gallery, place, button, seen: '', at: 0, pairs: []};
        place.addEventListener('click', function(event) {
            const by = event.target.closest('[data-by]')?.dataset.by;
            if (by) turn(tab, tab.at + Number(by));
        });
        let timer = null;
        new MutationObserver(function() {
            clearTimeout(timer);
            timer = setTimeout(() => changed(tab), WAIT);
        }).observe(gallery, {childList: true, subtree: true, attributes: true, attributeFilter: ['src', 'class']});
    }

    onUiLoaded(() => ['txt2img', 'img2img'].forEach(setUp));

    return {show};
})();
