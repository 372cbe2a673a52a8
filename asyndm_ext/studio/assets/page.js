// What the panel's script (javascript/asyndm.js) finds on a WebUI's page, for the studio's; and the theme.

var gradioApp = () => document;

var updateInput = (field) => field.dispatchEvent(new Event('input', {bubbles: true}));

/** Calls back once the panel is there, with its values. */
var onUiLoaded = function(callback) {
    const parts = ['.asyndm-plot', '.asyndm-chips', '#asyndm_find', '#studio_open'];
    const fields = ['#asyndm_strength input[type=number]', '#asyndm_curve input'];
    const isThere = () => parts.every((css) => document.querySelector(css)) &&
        fields.every((css) => document.querySelector(css)?.value);
    const look = function() {
        if (!isThere()) {
            setTimeout(look, 50); // a field that gets its value changes nothing that could be observed
            return;
        }
        callback();
        studio.ready();
        document.documentElement.dataset.studio = 'ready';
    };
    look();
};

var studio = {};

/** Light or dark: as chosen here the last time; else as the address or the system says, which gradio sees to. */
(function() {
    const KEY = 'asyndm-studio-theme';

    function kept() {
        try {
            return localStorage.getItem(KEY);
        } catch { // a window that keeps nothing
            return null;
        }
    }

    function keep(theme) {
        try {
            localStorage.setItem(KEY, theme);
        } catch { // then it lasts until the page is loaded again
        }
        document.documentElement.dataset.theme = theme;
    }

    function apply() {
        const theme = document.documentElement.dataset.theme;
        if (theme && document.body) document.body.classList.toggle('dark', theme === 'dark');
    }

    studio.turnTheme = function() {
        keep(document.body.classList.contains('dark') ? 'light' : 'dark');
        apply();
    };

    const theme = kept();
    if (theme) document.documentElement.dataset.theme = theme;
    // gradio says otherwise a moment later, and some of its versions run this after the page is there.
    function begin() {
        apply();
        new MutationObserver(apply).observe(document.body, {attributes: true, attributeFilter: ['class']});
    }
    if (document.body) begin(); else document.addEventListener('DOMContentLoaded', begin);
})();
