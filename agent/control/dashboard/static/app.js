// Follows logs and draws plots. What a job printed is only ever text.
'use strict';
(() => {
  const most = 256 * 1024; // characters of a log that the page keeps
  const control = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

  async function follow(pre) {
    const decoder = new TextDecoder();
    const res = await fetch(pre.dataset.log);
    if (!res.ok) {
      pre.textContent = '(the log cannot be read)';
      return;
    }
    const reader = res.body.getReader();
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      const end = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
      const text = pre.textContent + decoder.decode(value, {stream: true}).replace(/\r\n/g, '\n').replace(control, '\u2426');
      pre.textContent = text.length > most ? '…' + text.slice(-most) : text;
      if (end) pre.scrollTop = pre.scrollHeight;
    }
    if (!pre.textContent) pre.textContent = '(it printed nothing)';
  }

  function plot(parent, title, xs, series, format, incrs) {
    const style = getComputedStyle(document.documentElement);
    const soft = style.getPropertyValue('--soft').trim(), line = style.getPropertyValue('--line').trim();
    const colors = ['--accent', '--wait'].map(name => style.getPropertyValue(name).trim());
    const axis = {stroke: soft, grid: {stroke: line, width: 1}, ticks: {stroke: line, width: 1}, font: '12px system-ui, sans-serif'};
    new uPlot({
      width: parent.clientWidth, height: 170, title,
      cursor: {drag: {x: false, y: false}},
      scales: {y: {range: (_, min, max) => [0, Math.max(max, 1)]}},
      axes: [axis, {...axis, size: 66, incrs, values: (_, vs) => vs.map(format)}],
      legend: {show: series.length > 1},
      series: [{label: 'at'}, ...series.map((s, i) => ({
        label: s.label, stroke: colors[i], fill: colors[i] + '22', width: 2, points: {show: xs.length < 3},
        value: (_, v) => v == null ? '' : format(v)}))],
    }, [xs, ...series.map(s => s.values)], parent);
  }

  const bytes = n => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let i = 0;
    for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
    return +n.toFixed(1) + ' ' + units[i];
  };

  async function draw(box) {
    const res = await fetch(box.dataset.samples);
    if (!res.ok) return;
    const {samples} = await res.json();
    const xs = samples.map(s => Date.parse(s.at) / 1000);
    box.replaceChildren(...[1, 2, 3].map(() => document.createElement('div'))); // all of them, before any takes its width
    const [jobs, cpu, memory] = box.children;
    plot(jobs, 'Jobs', xs, [{label: 'active', values: samples.map(s => s.active)}, {label: 'waiting', values: samples.map(s => s.waiting)}],
      v => '' + +v.toFixed(1), [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000]);
    plot(cpu, 'Processors promised', xs, [{label: 'cores', values: samples.map(s => s.cpu / 1000)}], v => '' + +v.toFixed(2));
    plot(memory, 'Memory promised', xs, [{label: 'memory', values: samples.map(s => s.memory)}], bytes, Array.from({length: 40}, (_, i) => 2 ** (i + 10)));
  }

  function start() {
    for (const pre of document.querySelectorAll('[data-log]:not([data-on])')) {
      pre.dataset.on = '1';
      follow(pre).catch(() => {});
    }
    for (const box of document.querySelectorAll('[data-samples]')) {
      draw(box);
      setInterval(() => draw(box), 15000);
    }
    document.addEventListener('htmx:after:swap', () => {
      for (const pre of document.querySelectorAll('[data-log]:not([data-on])')) {
        pre.dataset.on = '1';
        follow(pre).catch(() => {});
      }
    });
  }
  // This script is the first: htmx may connect as soon as it is there, and nothing it says must be missed.
  const pulse = document.getElementById('pulse');
  document.addEventListener('htmx:sse:after:connection', () => { pulse.textContent = 'live'; pulse.classList.add('on'); });
  for (const name of ['htmx:sse:close', 'htmx:sse:error']) {
    document.addEventListener(name, () => { pulse.textContent = 'not live'; pulse.classList.remove('on'); });
  }
  document.addEventListener('DOMContentLoaded', start); // when the scripts behind this one are there, too
})();
