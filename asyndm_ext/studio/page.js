// What the panel's script (javascript/asyndm.js) finds on a WebUI's page, for the studio's.

var gradioApp = () => document;

var updateInput = (field) => field.dispatchEvent(new Event('input', {bubbles: true}));

/** Calls back once the panel is there, with its values. */
var onUiLoaded = function(callback) {
    const parts = ['.asyndm-plot', '.asyndm-chips', '#asyndm_find'];
    const fields = ['#asyndm_strength input[type=number]', '#asyndm_curve input'];
    const isThere = () => parts.every((css) => document.querySelector(css)) &&
        fields.every((css) => document.querySelector(css)?.value);
    const look = function() {
        if (!isThere()) {
            setTimeout(look, 50); // a field that gets its value changes nothing that could be observed
            return;
        }
        callback();
        document.documentElement.dataset.studio = 'ready';
    };
    look();
};

var studio = {
    turnTheme: () => document.body.classList.toggle('dark'),
};
