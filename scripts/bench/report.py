"""Tables (Markdown) and plots (SVG) of a comparison."""

import os
import platform
import re
import statistics
import subprocess
from html import escape

import common
import servers
from workloads import WORKLOADS

RESULTS = common.BENCH / "results"
README = common.ROOT / "README.md"

# The part of README.md that --publish writes lies between these lines.
BEGIN, END = "<!-- begin of scripts/bench/run --publish -->", "<!-- end of scripts/bench/run --publish -->"

# Figures of the plots: how to read one from a run, title, unit.
PLOTS = {
    "requests.svg": (lambda run: run["rate"], "requests per second", "{:,.0f}"),
    "cpu.svg": (lambda run: run["cpu"], "CPU microseconds per request", "{:,.1f}"),
}
COLOURS = {"tapster": "#c2410c", "native": "#a8a29e", "epoll": "#a8a29e"}
COLOUR = "#57728f"


def machine(date, cores, arguments):
    """What the figures depend on."""
    model = re.search(r"^model name\s*: (.*)$", open("/proc/cpuinfo").read(), re.MULTILINE)
    tapster = subprocess.run([str(servers.binary()), "--version"], capture_output=True, text=True, timeout=60).stdout.split()
    return {
        "date": date,
        "cpu": model[1] if model else platform.machine(),
        "count": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "tapster": tapster[-1],
        "versions": common.versions(),
        "cores": {str(count): parts for count, parts in cores.items()},
        "rounds": arguments.rounds,
        "quick": arguments.quick,
    }


def median(runs, figure):
    return statistics.median(figure(run) for run in runs)


def failure(runs):
    """Why a server has failed a workload; empty if it has not."""
    problems = [run["problem"] for run in runs if run["problem"]]
    errors = sum(run["errors"] for run in runs)
    if problems:
        return problems[0]
    return f"{errors:,} errors in {sum(run['done'] for run in runs):,} requests" if errors else ""


def ratio(runs, base, figure):
    """The median of a figure's ratio to Tapster's in the same round, and the least and greatest; None without figures."""
    pairs = [(figure(run), figure(other)) for run, other in zip(runs, base)]
    ratios = [mine / other for mine, other in pairs if mine and other]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def table(by_name):
    """One workload: the servers in the order of the run."""
    lines = [
        "| server | requests/s | p50 ms | p99 ms | CPU us/request | CPU ÷ Tapster (spread) | memory MB | errors |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    base = by_name.get("tapster", [])
    for name, runs in by_name.items():
        good = [run for run in runs if run["done"]]
        cells = ["-"] * 6
        if good:
            against = ratio(runs, base, lambda run: run["cpu"])
            cells = [
                f"{median(good, lambda run: run['rate']):,.0f}",
                f"{median(good, lambda run: run['p50']):.2f}",
                f"{median(good, lambda run: run['p99']):.2f}",
                f"{median(good, lambda run: run['cpu']):.1f}",
                f"{against[0]:.2f} ({against[1]:.2f}–{against[2]:.2f})" if against else "-",
                f"{median(good, lambda run: run['memory']) / 1e6:.0f}",
            ]
        fails = failure(runs)
        lines.append(f"| {name} | {' | '.join(cells)} | {'**fails**: ' + fails if fails else '0'} |")
    return "\n".join(lines)


def summary(results, count):
    """CPU per request of every server against Tapster, workloads down, servers across."""
    peers = [name for name in servers.KINDS if name != "tapster" and any(name in rows for (n, _), rows in results.items() if n == count)]
    lines = ["| workload | Tapster req/s | Tapster us | " + " | ".join(peers) + " |", "|---|---:|---:" + "|---:" * len(peers) + "|"]
    for key, load in WORKLOADS.items():
        rows = results.get((count, key))
        if not rows:
            continue
        base = rows.get("tapster", [])
        cells = []
        for name in peers:
            against = ratio(rows.get(name, []), base, lambda run: run["cpu"])
            fails = name in rows and failure(rows[name])
            cells.append("-" if name not in rows else "fails" if fails else f"{against[0]:.2f}" if against else "-")
        good = [run for run in base if run["done"]]
        own = ["-", "-"]
        if good:
            own = [f"{median(good, lambda run: run['rate']):,.0f}", f"{median(good, lambda run: run['cpu']):.1f}"]
        own[0] += " (fails)" if base and failure(base) else ""
        lines.append(f"| {load.title} | {' | '.join(own + cells)} |")
    return "\n".join(lines)


def plot(results, count, figure, title, form):
    """Bars: a panel for each workload, a bar for each server, as SVG."""
    panels = [(load.title.replace("`", ""), results[count, key]) for key, load in WORKLOADS.items() if (count, key) in results]
    width, columns, bar, label = 430, 2, 17, 118
    height = max((len(rows) for _, rows in panels), default=0) * bar + 44
    whole = f"{width * columns + 20} {-(-len(panels) // columns) * height + 50}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="20" y="28" font-size="16" font-weight="bold">{escape(title)}, {count} worker(s)</text>',
    ]
    for number, (heading, rows) in enumerate(panels):
        x, y = 20 + number % columns * width, 58 + number // columns * height
        parts.append(f'<text x="{x}" y="{y}" font-weight="bold">{escape(heading)}</text>')
        values = {name: statistics.median([figure(run) for run in runs if run["done"]] or [0]) for name, runs in rows.items()}
        greatest = max(values.values(), default=0) or 1
        for row, (name, value) in enumerate(values.items()):
            top = y + 8 + row * bar
            length = (width - label - 100) * value / greatest
            text = form.format(value) if value else ""
            if failure(rows[name]):
                text += " fails"
            parts.append(f'<text x="{x + label - 6}" y="{top + 11}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="{x + label}" y="{top + 2}" width="{length:.1f}" height="{bar - 5}" fill="{COLOURS.get(name, COLOUR)}"/>')
            parts.append(f'<text x="{x + label + length + 5:.1f}" y="{top + 11}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def setting(facts):
    """The sentence on machine and versions."""
    packages = {kind.package for kind in servers.KINDS.values() if kind.package} | {"flask", "django"}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts["versions"].items()) if name in packages)
    cores = "; ".join(f"{count} worker(s): server on {parts[0]}, client on {parts[1]}" for count, parts in facts["cores"].items())
    return (
        f"{facts['date']}: {facts['cpu']}, {facts['count']} cores, Linux {facts['kernel']}, Python {facts['python']}, "
        f"Tapster {facts['tapster']}, {versions}. {facts['rounds']} interleaved round(s){', shortened runs' if facts['quick'] else ''}; "
        f"medians. Cores: {cores}."
    )


def write(raw, out, publish):
    """Writes results.md and the plots, prints the summary; with `publish` also to README.md."""
    results = {}
    for row in raw["rows"]:
        results.setdefault((row["workers"], row["workload"]), {})[row["server"]] = row["runs"]
    # Rounds begin with another server each; the report keeps one order.
    results = {key: {name: rows[name] for name in servers.KINDS if name in rows} for key, rows in results.items()}
    counts = sorted({count for count, _ in results})
    text = [f"# Comparison\n\n{setting(raw['machine'])}\n", "How the servers were started:\n"]
    text += [f"- {name}: {kind.note}" for name, kind in servers.KINDS.items() if kind.note]
    short = [setting(raw["machine"]), ""]
    for count in counts:
        heading = f"CPU time per request divided by Tapster's, {count} worker(s) (1.50: half as much again):\n"
        text += [f"\n## {count} worker(s)\n", heading, summary(results, count)]
        short += [heading, summary(results, count), ""]
        for key, load in WORKLOADS.items():
            if (count, key) in results:
                text += [f"\n### {load.title}, {count} worker(s)\n", table(results[count, key])]
        for file, (figure, title, form) in PLOTS.items():
            (out / f"{count}-{file}").write_text(plot(results, count, figure, title, form))
    (out / "results.md").write_text("\n".join(text) + "\n")
    print("\n".join(short))
    if publish:
        put_in_readme("\n".join(short), counts)


def put_in_readme(text, counts):
    old = README.read_text()
    if BEGIN not in old or END not in old:
        old += f"\n## Performance\n\n{BEGIN}\n{END}\n"
    begin, end = old.find(BEGIN), old.find(END)
    images = [f"![{title}](scripts/bench/results/{count}-{file})" for count in counts for file, (_, title, _) in PLOTS.items()]
    links = "\n".join([*images, "", "All figures: [scripts/bench/results/results.md](scripts/bench/results/results.md)."])
    README.write_text(f"{old[:begin]}{BEGIN}\n\n{text}\n{links}\n\n{old[end:]}")
