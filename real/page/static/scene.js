// The arm as lines, seen in parallel projection; a view that can be turned, and a handle at the tool.
"use strict";

const FARTHEST_M = 3; // from the base, along each axis: the node refuses what is further

class Scene {
  constructor(canvas) {
    this.canvas = canvas;
    this.turn = 0.7; // rad about the vertical
    this.tilt = 0.35; // rad above the horizon
    this.scale = 0.65; // of the smaller side of the canvas, a metre
    this.state = null;
    this.target = null; // m in the base's frame, while it is dragged
    this.from = null; // where the pointer was
    this.pointer = null; // which one: a second finger moves nothing
    canvas.addEventListener("pointerdown", (event) => this.grasp(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(name, (event) => event.pointerId === this.pointer && this.letGo());
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.scale = Math.min(3, Math.max(0.2, this.scale * Math.exp(-0.001 * event.deltaY)));
      this.draw();
    }, { passive: false });
    this.onGrasp = () => {};
  }

  // Directions on the screen, in the base's frame.
  axes() {
    const [ct, st, cu, su] = [Math.cos(this.turn), Math.sin(this.turn), Math.cos(this.tilt), Math.sin(this.tilt)];
    return { right: [-st, ct, 0], up: [-su * ct, -su * st, cu] };
  }

  metre() {
    return this.scale * Math.min(this.canvas.clientWidth, this.canvas.clientHeight);
  }

  place(point) {
    const { right, up } = this.axes();
    const at = [point[0] - 0.25, point[1], point[2] - 0.4]; // the middle of the view
    const along = (axis) => axis[0] * at[0] + axis[1] * at[1] + axis[2] * at[2];
    return [this.canvas.clientWidth / 2 + along(right) * this.metre(),
            this.canvas.clientHeight / 2 - along(up) * this.metre()];
  }

  grasp(event) {
    if (this.from || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.from = [event.offsetX, event.offsetY];
    if (!this.state) return;
    const [x, y] = this.place(this.state.tool);
    if (Math.hypot(event.offsetX - x, event.offsetY - y) > 20) return;
    this.target = this.state.tool.slice(0, 3);
    this.onGrasp();
  }

  move(event) {
    if (!this.from || event.pointerId !== this.pointer) return;
    const by = [event.offsetX - this.from[0], event.offsetY - this.from[1]];
    this.from = [event.offsetX, event.offsetY];
    if (this.target) {
      const { right, up } = this.axes();
      const moved = this.target.map((v, k) => v + (right[k] * by[0] - up[k] * by[1]) / this.metre());
      this.target = moved.map((v) => Math.min(FARTHEST_M, Math.max(-FARTHEST_M, v)));
    } else {
      this.turn -= 0.01 * by[0];
      this.tilt = Math.min(1.5, Math.max(-0.2, this.tilt + 0.01 * by[1]));
    }
    this.draw();
  }

  letGo() {
    this.from = this.target = this.pointer = null;
    this.draw();
  }

  show(state) {
    this.state = state;
    this.draw();
  }

  draw() {
    const { canvas, state } = this;
    const dots = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * dots;
    canvas.height = canvas.clientHeight * dots;
    const pen = canvas.getContext("2d");
    pen.scale(dots, dots);
    this.drawFloor(pen);
    if (!state) return;
    this.drawBox(pen, state.box);
    pen.lineCap = pen.lineJoin = "round";
    state.lines.forEach((line, k) => this.line(pen, line, k ? "#334155" : "#1f2937", k ? 5 : 9));
    for (const joint of state.lines[0].slice(1, -1)) this.dot(pen, joint, 5, "#94a3b8");
    const [x, y] = this.place(state.tool);
    canvas.dataset.handle = `${x},${y}`; // for those who drive the page
    this.ring(pen, x, y, "#ea580c");
    if (this.target) {
      this.line(pen, [state.tool, this.target], "#ea580c", 1);
      this.ring(pen, ...this.place(this.target), "#dc2626");
    }
  }

  drawFloor(pen) {
    for (let k = -4; k <= 4; k++) {
      this.line(pen, [[k / 4, -1, 0], [k / 4, 1, 0]], "#e5e7eb", 1);
      this.line(pen, [[-1, k / 4, 0], [1, k / 4, 0]], "#e5e7eb", 1);
    }
    ["#dc2626", "#16a34a", "#2563eb"].forEach((colour, k) => {
      const end = [0, 0, 0];
      end[k] = 0.15;
      this.line(pen, [[0, 0, 0], end], colour, 2);
    });
  }

  drawBox(pen, box) {
    const corner = (k) => [0, 1, 2].map((axis) => box[(k >> axis) & 1][axis]);
    for (let k = 0; k < 8; k++) {
      for (let axis = 0; axis < 3; axis++) {
        if (!((k >> axis) & 1)) this.line(pen, [corner(k), corner(k | (1 << axis))], "#cbd5e1", 1);
      }
    }
  }

  line(pen, points, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    points.forEach((point, k) => (k ? pen.lineTo(...this.place(point)) : pen.moveTo(...this.place(point))));
    pen.stroke();
  }

  dot(pen, point, radius, colour) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(...this.place(point), radius, 0, 7);
    pen.fill();
  }

  ring(pen, x, y, colour) {
    pen.strokeStyle = colour;
    pen.lineWidth = 3;
    pen.beginPath();
    pen.arc(x, y, 13, 0, 7);
    pen.stroke();
  }
}
