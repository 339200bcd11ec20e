"use strict";
(() => {
  const MOST_ZOOM = 64, STEP = 1.5, PAN_SHARE = 0.1, GRIP_PX = 14, BAR_SHARE = 0.3;

  const bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

  async function inflated(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function loadedImage(address) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("the scene's picture cannot be decoded"));
      image.src = address;
    });
  }

  const clamped = (value, low, high) => Math.min(high, Math.max(low, value));

  class View {
    constructor(section) {
      this.section = section;
      this.canvas = section.querySelector("canvas");
      this.context = this.canvas.getContext("2d");
      this.swipe = section.querySelector("input[type=range]");
      this.readout = section.querySelector("output");
      this.boxes = [...section.querySelectorAll("input[type=checkbox]")];
      this.facts = JSON.parse(section.querySelector("script[type='application/json']").textContent);
      this.zoom = 1;
      this.centre = [this.facts.width / 2, this.facts.height / 2];
      this.pointers = new Map();
      this.listen();
      new ResizeObserver(() => this.draw()).observe(section.querySelector(".stage"));
      // Pictures of maps far away are given back: a page may hold many.
      new IntersectionObserver(
        (entries) => (entries[entries.length - 1].isIntersecting ? this.load() : this.unload()),
        { rootMargin: "100%" }
      ).observe(this.canvas);
    }

    async load() {
      if (this.wanted) return;
      this.wanted = true;
      try {
        const labels = await inflated(bytesOf(this.facts.labels));
        const scene = this.facts.scene ? await loadedImage(this.facts.scene) : null;
        if (!this.wanted) return;
        // Two bytes a pixel, the lower first, where a legend needs them.
        const isWide = labels.length > this.facts.width * this.facts.height;
        this.labels = isWide ? new Uint16Array(labels.buffer) : labels;
        this.scene = scene;
        this.paint();
        this.section.dataset.state = "ready";
      } catch (error) {
        this.section.dataset.state = "failed";
        this.say(`This browser cannot show the map: ${error.message}`);
      }
    }

    unload() {
      this.wanted = false;
      this.labels = this.scene = this.mask = null;
      delete this.section.dataset.state;
    }

    /** Colours of the shown classes, made anew when one is switched. */
    paint() {
      if (!this.labels) return;
      const { width, height } = this.facts;
      const colours = new Uint32Array(65536);
      for (const [value, red, green, blue] of this.facts.classes) {
        const box = this.boxes.find((one) => Number(one.value) === value);
        if (box.checked) colours[value] = new Uint32Array(new Uint8Array([red, green, blue, 255]).buffer)[0];
      }
      const image = new ImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let place = 0; place < pixels.length; place++) pixels[place] = colours[this.labels[place]];
      this.mask = this.mask || Object.assign(document.createElement("canvas"), { width, height });
      this.mask.getContext("2d").putImageData(image, 0, 0);
      this.draw();
    }

    get split() {
      return this.swipe ? Number(this.swipe.value) / 100 : 0;
    }

    /** Lays out the canvas for its place on the page; sizes are CSS pixels. */
    measure() {
      const { width, height } = this.facts, ratio = window.devicePixelRatio || 1;
      const wide = this.canvas.parentElement.clientWidth;
      const high = clamped((wide * height) / width, 128, Math.max(240, window.innerHeight * 0.8));
      this.canvas.style.height = `${high}px`;
      this.size = [this.canvas.clientWidth, this.canvas.clientHeight];
      const [across, down] = this.size.map((side) => Math.round(side * ratio));
      if (this.canvas.width !== across || this.canvas.height !== down) {
        this.canvas.width = across;
        this.canvas.height = down;
      }
      this.fit = Math.min(this.size[0] / width, this.size[1] / height);
      this.ratio = ratio;
    }

    get scale() {
      return this.fit * this.zoom;
    }

    /** Upper left corner of the picture on the canvas. */
    get origin() {
      return this.size.map((side, axis) => side / 2 - this.centre[axis] * this.scale);
    }

    draw() {
      this.measure();
      if (!this.mask) return;
      const { width, height } = this.facts, context = this.context, [wide, high] = this.size, [left, top] = this.origin;
      const target = [left, top, width * this.scale, height * this.scale], edge = Math.round(this.split * wide);
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.clearRect(0, 0, wide, high);
      context.imageSmoothingEnabled = this.scale * this.ratio < 1;
      if (this.scene) context.drawImage(this.scene, ...target);
      context.save();
      context.beginPath();
      context.rect(edge, 0, wide, high);
      context.clip();
      // Never smoothed: a mixture of two colours is no class.
      context.imageSmoothingEnabled = false;
      context.drawImage(this.mask, ...target);
      context.restore();
      if (this.swipe) this.drawDivider(edge, high);
      if (this.facts.metres) this.drawBar(wide, high);
      if (this.aims) this.drawCross(wide / 2, high / 2);
      this.canvas.style.touchAction = this.zoom > 1 ? "none" : "pan-y";
    }

    drawDivider(edge, high) {
      const context = this.context;
      context.fillStyle = "#000";
      context.fillRect(edge - 2, 0, 4, high);
      context.fillStyle = "#fff";
      context.fillRect(edge - 1, 0, 2, high);
      context.beginPath();
      context.arc(edge, high / 2, 9, 0, 2 * Math.PI);
      context.fill();
      context.strokeStyle = "#000";
      context.stroke();
    }

    drawCross(x, y) {
      for (const [colour, width] of [["#fff", 4], ["#000", 2]]) {
        this.context.strokeStyle = colour;
        this.context.lineWidth = width;
        this.context.beginPath();
        this.context.moveTo(x - 9, y);
        this.context.lineTo(x + 9, y);
        this.context.moveTo(x, y - 9);
        this.context.lineTo(x, y + 9);
        this.context.stroke();
      }
    }

    /** The longest bar of 1, 2 or 5 times a power of ten metres that fits. */
    drawBar(wide, high) {
      const metres = this.facts.metres / this.scale, most = BAR_SHARE * wide * metres;
      const power = 10 ** Math.floor(Math.log10(most));
      const length = [5, 2, 1].map((step) => step * power).find((one) => one <= most) || power;
      const text = length >= 1000 ? `${+(length / 1000).toPrecision(1)} km` : `${+length.toPrecision(1)} m`;
      const context = this.context, bar = length / metres, left = 12, base = high - 12;
      context.font = "13px system-ui, sans-serif";
      context.fillStyle = "rgb(0 0 0 / 0.7)";
      context.fillRect(left - 6, base - 24, Math.max(bar, context.measureText(text).width) + 12, 31);
      context.fillStyle = "#fff";
      context.fillText(text, left, base - 8);
      context.fillRect(left, base - 2, bar, 3);
    }

    zoomTo(zoom, [x, y] = [this.size[0] / 2, this.size[1] / 2]) {
      const under = this.pictureAt(x, y);
      this.zoom = clamped(zoom, 1, MOST_ZOOM);
      this.centre = [under[0] - (x - this.size[0] / 2) / this.scale, under[1] - (y - this.size[1] / 2) / this.scale];
      this.stay();
    }

    pan(x, y) {
      this.centre = [this.centre[0] - x / this.scale, this.centre[1] - y / this.scale];
      this.stay();
    }

    /** Keeps the view on the picture, and draws. */
    stay() {
      const sides = [this.facts.width, this.facts.height];
      this.centre = this.centre.map((place, axis) => {
        const half = Math.min(this.size[axis] / this.scale, sides[axis]) / 2;
        return clamped(place, half, sides[axis] - half);
      });
      this.section.dataset.zoom = this.zoom.toFixed(3);
      this.section.dataset.centre = this.centre.map((place) => place.toFixed(2)).join(" ");
      this.draw();
    }

    pictureAt(x, y) {
      return [(x - this.origin[0]) / this.scale, (y - this.origin[1]) / this.scale];
    }

    placeOf(event) {
      const box = this.canvas.getBoundingClientRect();
      return [event.clientX - box.left - this.canvas.clientLeft, event.clientY - box.top - this.canvas.clientTop];
    }

    say(text, isSpoken = false) {
      this.readout.setAttribute("aria-live", isSpoken ? "polite" : "off");
      this.readout.textContent = text;
    }

    /** Names the class at a place of the canvas, and the place on the map. */
    tell(x, y, isSpoken = false) {
      if (!this.labels) return;
      const { width, height, transform, crs, digits } = this.facts, [col, row] = this.pictureAt(x, y);
      if (col < 0 || row < 0 || col >= width || row >= height) return this.say("");
      const value = this.labels[Math.floor(row) * width + Math.floor(col)];
      const found = this.facts.classes.find((one) => one[0] === value);
      const east = (transform[0] * col + transform[1] * row + transform[2]).toFixed(digits);
      const north = (transform[3] * col + transform[4] * row + transform[5]).toFixed(digits);
      const place = `x ${east}, y ${north}${crs ? ` (${crs})` : ""}`;
      this.say(`${found ? `${found[4]} (${value})` : "no answer"} at ${place}`, isSpoken);
    }

    setSplit(share) {
      this.swipe.value = String(Math.round(clamped(share, 0, 1) * 100));
      this.swiped();
    }

    swiped() {
      this.swipe.setAttribute("aria-valuetext", `scene on the left ${this.swipe.value} % of the view`);
      this.draw();
    }

    listen() {
      for (const box of this.boxes) box.addEventListener("change", () => this.paint());
      if (this.swipe) this.swipe.addEventListener("input", () => this.swiped());
      const actions = {
        in: () => this.zoomTo(this.zoom * STEP),
        out: () => this.zoomTo(this.zoom / STEP),
        whole: () => this.zoomTo(1),
        all: () => this.check(true),
        none: () => this.check(false),
      };
      for (const button of this.section.querySelectorAll("button")) {
        button.addEventListener("click", actions[button.dataset.action]);
      }
      const canvas = this.canvas;
      canvas.addEventListener("pointerdown", (event) => this.grab(event));
      canvas.addEventListener("pointermove", (event) => this.move(event));
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.release(event));
      canvas.addEventListener("pointerleave", () => this.say(""));
      canvas.addEventListener("wheel", (event) => this.turn(event), { passive: false });
      canvas.addEventListener("keydown", (event) => this.press(event));
      canvas.addEventListener("focus", () => this.aim(canvas.matches(":focus-visible")));
      canvas.addEventListener("blur", () => this.aim(false));
    }

    check(isShown) {
      for (const box of this.boxes) box.checked = isShown;
      this.paint();
    }

    aim(isAiming) {
      this.aims = isAiming;
      this.draw();
    }

    isOnDivider(x) {
      return this.swipe !== null && Math.abs(x - this.split * this.size[0]) <= GRIP_PX;
    }

    grab(event) {
      const place = this.placeOf(event);
      this.canvas.setPointerCapture(event.pointerId);
      this.divides = this.pointers.size === 0 && this.isOnDivider(place[0]);
      this.pointers.set(event.pointerId, place);
      this.canvas.classList.toggle("moving", !this.divides);
    }

    move(event) {
      const place = this.placeOf(event), before = this.pointers.get(event.pointerId);
      if (!before) {
        this.canvas.classList.toggle("dividing", this.isOnDivider(place[0]));
        return this.tell(...place);
      }
      const other = [...this.pointers].find(([number]) => number !== event.pointerId);
      this.pointers.set(event.pointerId, place);
      if (this.divides) return this.setSplit(place[0] / this.size[0]);
      if (!other) return this.pan(place[0] - before[0], place[1] - before[1]);
      const [x, y] = other[1], far = (point) => Math.max(1, Math.hypot(point[0] - x, point[1] - y));
      this.zoomTo((this.zoom * far(place)) / far(before), [(place[0] + x) / 2, (place[1] + y) / 2]);
    }

    release(event) {
      this.pointers.delete(event.pointerId);
      if (this.pointers.size === 0) this.divides = false;
      this.canvas.classList.remove("moving");
    }

    /** The wheel scrolls the page until the map was clicked or tabbed to. */
    turn(event) {
      if (document.activeElement !== this.canvas && !event.ctrlKey) return;
      event.preventDefault();
      this.zoomTo(this.zoom * Math.exp(-clamped(event.deltaY, -200, 200) / 300), this.placeOf(event));
    }

    press(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const [wide, high] = this.size.map((side) => side * PAN_SHARE);
      const actions = {
        ArrowLeft: () => this.pan(wide, 0),
        ArrowRight: () => this.pan(-wide, 0),
        ArrowUp: () => this.pan(0, high),
        ArrowDown: () => this.pan(0, -high),
        "+": () => this.zoomTo(this.zoom * STEP),
        "=": () => this.zoomTo(this.zoom * STEP),
        "-": () => this.zoomTo(this.zoom / STEP),
        0: () => this.zoomTo(1),
      };
      const action = actions[event.key];
      if (!action) return;
      event.preventDefault();
      this.aims = true;
      action();
      this.tell(this.size[0] / 2, this.size[1] / 2, true);
    }
  }

  for (const section of document.querySelectorAll("section.map")) new View(section);
})();
