// Pictures, enlarged at a press. Also in the file that a run is saved as.

(function() {
    const pictures = () => Array.from(document.querySelectorAll('.studio-zoom img')).filter((one) => one.offsetParent);
    let dialog = null, shown = [], at = 0;

    function build() {
        dialog = document.createElement('dialog');
        dialog.className = 'studio-lightbox';
        dialog.setAttribute('aria-label', 'The picture, enlarged');
        dialog.innerHTML = '<button type="button" class="studio-close" aria-label="Close" autofocus>✕</button>' +
            '<button type="button" class="studio-previous" aria-label="Previous picture">‹</button>' +
            '<figure><img alt=""><figcaption aria-live="polite"></figcaption></figure>' +
            '<button type="button" class="studio-next" aria-label="Next picture">›</button>';
        document.body.append(dialog);
        dialog.addEventListener('click', function(event) {
            const button = event.target.closest('button');
            if (!button) {
                if (!event.target.closest('img, figcaption')) dialog.close();
            } else if (button.className === 'studio-close') {
                dialog.close();
            } else {
                turn(button.className === 'studio-next' ? 1 : -1);
            }
        });
        dialog.addEventListener('keydown', function(event) {
            const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
            if (by) {
                event.preventDefault();
                turn(by);
            }
        });
        let from = null;
        dialog.addEventListener('touchstart', (event) => { from = event.changedTouches[0].clientX; }, {passive: true});
        dialog.addEventListener('touchend', function(event) {
            const way = event.changedTouches[0].clientX - from;
            if (Math.abs(way) > 40) turn(way < 0 ? 1 : -1);
        }, {passive: true});
    }

    function turn(by) {
        at = (at + by + shown.length) % shown.length;
        show();
    }

    function show() {
        const {source, alt, title, says, shape, blocks} = shown[at];
        const picture = dialog.querySelector('img');
        picture.src = source;
        picture.alt = alt;
        picture.classList.toggle('studio-blocks', blocks);
        picture.style.setProperty('--shape', shape);
        const caption = dialog.querySelector('figcaption');
        const count = shown.length > 1 ? ` (${at + 1} of ${shown.length})` : '';
        caption.textContent = says;
        const heading = document.createElement('b');
        heading.textContent = title + count;
        caption.prepend(heading, ' ');
    }

    function open(picture) {
        if (!dialog || !dialog.isConnected) build();
        const all = pictures();
        shown = all.map(function(one) {
            const figure = one.closest('figure');
            return {
                source: one.src,
                alt: one.alt,
                title: figure.querySelector('.studio-title b')?.textContent ?? one.alt,
                says: figure.querySelector('figcaption')?.textContent ?? '',
                shape: one.naturalWidth / one.naturalHeight,
                blocks: getComputedStyle(one).imageRendering === 'pixelated',
            };
        });
        at = all.indexOf(picture);
        show();
        dialog.showModal();
    }

    document.addEventListener('click', function(event) {
        const press = event.target.closest?.('.studio-zoom');
        if (press) open(press.querySelector('img'));
    });
})();
