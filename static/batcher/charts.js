/* Draws the charts with Chart.js, which the theme brings, from the figures that the page carries. HTMX renews the
   figures; a chart then gets new numbers and keeps its canvas. A point leads to the list that it counts. */
"use strict";

(() => {
    const DASHES = { p50: [], p90: [6, 4], p99: [2, 3] };
    const SECONDS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const ON_AXIS = [1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400];
    const charts = new Map();
    let points = null;

    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--b-chart-${name}`).trim();
    const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
    const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

    function duration(seconds) {
        if (seconds < 1) return `${whole.format(seconds)} s`;
        const place = SECONDS.findIndex(([size]) => seconds >= size);
        const [size, unit] = SECONDS[place];
        const next = SECONDS[place + 1];
        const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
        return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${next[1]}` : ""}`;
    }

    const clock = (at) => at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const day = (at) => at.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" });

    function labels() {
        const isLong = points.range === "7d";
        return points.starts.map((start) => {
            const at = new Date(start);
            return isLong ? `${day(at)} ${clock(at)}` : clock(at);
        });
    }

    function tick(place) {
        const at = new Date(points.starts[place]);
        return points.range === "7d" ? day(at) : clock(at);
    }

    const value = (unit, count, place) => {
        if (unit !== "rate") return count;
        return points.minutes[place] ? count / points.minutes[place] : null;
    };

    /* A point between two gaps has no line to be seen by. */
    function isAlone({ dataset: set, dataIndex: at }) {
        const has = (place) => set.data[place] !== null && set.data[place] !== undefined;
        return has(at) && !has(at - 1) && !has(at + 1) ? 2.5 : 0;
    }

    function dataset(chart, series, place) {
        const paint = colour(series.name) || colour(`error-${place}`);
        const isFilled = chart.kind !== "lines";
        return {
            label: series.label,
            data: series.values.map((count, at) => value(chart.unit, count, at)),
            borderColor: paint,
            backgroundColor: isFilled ? `${paint}cc` : paint,
            borderDash: DASHES[series.name] || [],
            borderWidth: chart.kind === "lines" ? 2 : 1,
            fill: chart.kind === "areas",
            pointRadius: isAlone,
            pointHitRadius: 12,
            pointHoverRadius: 4,
            spanGaps: chart.unit === "seconds",
            tension: 0,
        };
    }

    function tell(name, item) {
        const chart = points.charts[name];
        const series = chart.series[item.datasetIndex];
        const count = series.values[item.dataIndex];
        if (count === null) return "";
        if (chart.unit === "seconds") return `${series.label}: ${duration(count)}`;
        if (chart.unit === "rate" && points.range !== "1h") {
            return `${series.label}: ${whole.format(item.parsed.y)} a minute (${whole.format(count)})`;
        }
        return `${series.label}: ${whole.format(chart.unit === "rate" ? item.parsed.y : count)}`;
    }

    function open(name, event, chart) {
        const isBar = points.charts[name].kind === "bars";
        const [hit] = chart.getElementsAtEventForMode(event, "nearest", { intersect: isBar, axis: "xy" }, true);
        if (!hit) return;
        const series = points.charts[name].series[hit.datasetIndex];
        const between = { _from_: points.starts[hit.index], _to_: points.ends[hit.index] };
        window.location.href = series.url.replace(/_from_|_to_/g, (word) => between[word]);
    }

    function yScale(chart) {
        const isTime = chart.unit === "seconds";
        return {
            type: isTime ? "logarithmic" : "linear",
            stacked: chart.kind !== "lines",
            beginAtZero: true,
            border: { display: false },
            afterBuildTicks: (axis) => {
                if (isTime) axis.ticks = ON_AXIS.filter((at) => at >= axis.min && at <= axis.max).map((at) => ({ value: at }));
            },
            ticks: {
                maxTicksLimit: 5,
                precision: 0,
                callback: (at) => (isTime ? duration(at) : short.format(at)),
            },
        };
    }

    function made(canvas, name, chart) {
        return new Chart(canvas, {
            type: chart.kind === "bars" ? "bar" : "line",
            data: { labels: labels(), datasets: chart.series.map((series, place) => dataset(chart, series, place)) },
            options: {
                animation: false,
                responsive: true,
                maintainAspectRatio: false,
                normalized: true,
                interaction: { mode: "index", intersect: false },
                onClick: (event, _hits, self) => open(name, event, self),
                onHover: (event, hits) => {
                    event.native.target.style.cursor = hits.length ? "pointer" : "default";
                },
                plugins: {
                    legend: { align: "start", labels: { boxWidth: 16, boxHeight: 2, padding: 14, usePointStyle: false } },
                    tooltip: {
                        callbacks: { label: (item) => tell(name, item) },
                        filter: (item) => points.charts[name].kind === "lines" || item.raw,
                    },
                },
                scales: {
                    x: {
                        stacked: chart.kind !== "lines",
                        grid: { display: false },
                        border: { display: false },
                        ticks: { maxTicksLimit: 7, maxRotation: 0, autoSkipPadding: 16, callback: tick },
                    },
                    y: yScale(chart),
                },
            },
        });
    }

    function renew(drawn, name, chart) {
        const hidden = new Set();
        drawn.data.datasets.forEach((set, place) => {
            if (!drawn.isDatasetVisible(place)) hidden.add(set.label);
        });
        const sets = chart.series.map((series, place) => dataset(chart, series, place));
        drawn.data.labels = labels();
        sets.forEach((set, place) => {
            set.hidden = hidden.has(set.label);
            drawn.data.datasets[place] = Object.assign(drawn.data.datasets[place] || {}, set);
        });
        drawn.data.datasets.length = sets.length;
    }

    function paint(drawn) {
        const { x, y } = drawn.options.scales;
        x.ticks.color = colour("words");
        y.ticks.color = colour("words");
        y.grid = { color: colour("grid") };
        drawn.options.plugins.legend.labels.color = colour("words");
        drawn.update("none");
    }

    function draw() {
        const figures = document.getElementById("charts-figures");
        if (!figures || typeof Chart === "undefined") return;
        points = JSON.parse(figures.dataset.points);
        Chart.defaults.font.family = "Inter, sans-serif";
        document.querySelectorAll("canvas[data-chart]").forEach((canvas) => {
            const name = canvas.dataset.chart;
            const chart = points.charts[name];
            const isEmpty = !chart.series.some((series) => series.values.some(Boolean));
            canvas.hidden = isEmpty;
            const words = document.querySelector(`[data-empty="${name}"]`);
            if (words) words.hidden = !isEmpty;
            if (isEmpty) return;
            if (charts.has(name)) renew(charts.get(name), name, chart);
            else charts.set(name, made(canvas, name, chart));
            paint(charts.get(name));
        });
    }

    document.addEventListener("DOMContentLoaded", () => {
        draw();
        const recolour = new MutationObserver(() => points && draw());
        recolour.observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
    });
    document.addEventListener("htmx:load", (event) => {
        if (event.detail.elt.id === "charts-figures" && points) draw();
    });
})();
