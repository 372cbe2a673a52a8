// The rest of the studio's page: the runs to go back to, links, the file, and what the pictures are shown as.

(function() {
    const part = (id) => document.getElementById('studio_' + id);
    const isRunning = () => part('run').disabled;
    const SOON = 100; // milliseconds, in which the page takes what a script has set
    let picked = 0;

    studio.picked = () => picked;

    studio.run = function() {
        if (!isRunning()) part('run').click();
    };

    /** The prompt of an example, and no objects named; drawn as soon as the page has taken them. */
    studio.example = function(prompt) {
        setTimeout(studio.run, SOON);
        return [prompt, ''];
    };

    // --- links

    /** Puts the shown run's settings into the address, so that the page opens with them when it is loaded again. */
    studio.address = function(written) {
        if (written) history.replaceState(null, '', '#' + JSON.parse(written).link);
    };

    studio.opened = function(word) {
        if (word === 'run') setTimeout(studio.run, SOON);
    };

    studio.copy = async function(written) {
        if (!written) return;
        const {link, note} = JSON.parse(written);
        const done = await toClipboard(location.origin + location.pathname + '#' + link + '&run=1');
        say(part('copy'), done ? 'Copied' + (note && ', ' + note) : 'Copy it from the address bar');
    };

    /** Whether it worked. On a page that is not served safely, which a studio on the network is, the new way is shut. */
    async function toClipboard(text) {
        try {
            await navigator.clipboard.writeText(text);
            return true;
        } catch {
            const field = document.createElement('textarea');
            field.value = text;
            document.body.append(field);
            field.select();
            const done = document.execCommand('copy');
            field.remove();
            return done;
        }
    }

    /** On a button, for a moment. */
    function say(button, text) {
        button.dataset.label ??= button.textContent;
        button.textContent = text;
        button.setAttribute('aria-live', 'polite');
        clearTimeout(button.timer);
        button.timer = setTimeout(() => { button.textContent = button.dataset.label; }, 2500);
    }

    // --- the file

    studio.save = function(written) {
        if (!written) return;
        const {name, text} = JSON.parse(written);
        const link = document.createElement('a');
        link.href = URL.createObjectURL(new Blob([text], {type: 'text/html'}));
        link.download = name;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    };

    // --- how the pictures are shown

    function view(name) {
        part('results').dataset.view = name;
        part('views').querySelectorAll('button').forEach(
            (button) => button.setAttribute('aria-pressed', String(button.dataset.view === name)));
    }

    /** New pictures: their slider stands where that of the last ones stood. */
    function place() {
        const slider = document.querySelector('.asyndm-compare input');
        const split = parseFloat(document.documentElement.style.getPropertyValue('--asyndm-split'));
        if (slider && !isNaN(split)) slider.value = split;
    }

    studio.ready = function() {
        document.documentElement.lang = 'en';
        part('status').setAttribute('aria-live', 'polite');
        new MutationObserver(place).observe(part('gallery'), {childList: true, subtree: true});
        if (location.hash.length > 1) part('open').click();
        window.addEventListener('hashchange', () => part('open').click());
    };

    document.addEventListener('click', function(event) {
        const thumbnail = event.target.closest?.('.studio-thumbnail');
        if (thumbnail && !isRunning()) {
            picked = Number(thumbnail.dataset.run);
            part('pick').click();
        }
        const button = event.target.closest?.('#studio_views button');
        if (button) view(button.dataset.view);
    });

    // What was wrong with a prompt is not said any more once it is another.
    document.addEventListener('input', function(event) {
        if (event.target.closest?.('#studio_prompt, #studio_settings')) document.body.dataset.edited = '';
    });
    document.addEventListener('click', function(event) {
        if (event.target.closest?.('#studio_run')) delete document.body.dataset.edited;
    });
    document.addEventListener('keydown', function(event) {
        if (event.key === 'Enter' && event.target.closest?.('#studio_prompt')) delete document.body.dataset.edited;
    });
})();
