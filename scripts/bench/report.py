"""Tables (Markdown) and plots (SVG) of a comparison."""

import json
import os
import platform
import re
import statistics
import subprocess
import textwrap
from html import escape

import common
import servers
from workloads import WORKLOADS, Scale

RESULTS = common.BENCH / "results"
COSTS = common.BENCH / "COSTS.md"
README = common.ROOT / "README.md"

# The parts of COSTS.md and README.md that --publish writes are between these lines.
BEGIN, END = "<!-- begin of scripts/bench/run --publish -->", "<!-- end of scripts/bench/run --publish -->"

# Figures of the plots: which one, title, form.
PLOTS = {
    "cpu.svg": ("cpu", "CPU microseconds per request (shorter is better)", "{:,.1f}"),
    "requests.svg": ("rate", "requests per second (longer is better)", "{:,.0f}"),
}
PARTS = {"one": "One worker each", "four": "Several workers"}
# With whom the others of a part are compared.
BASES = {"one": "tapster", "four": "tapster x1"}
# Those that the project's first benchmark was about, and how many times their requests/s are asked for.
SEEDS, TIMES = ("gunicorn", "gunicorn-gthread", "waitress", "cheroot", "tornado", "tornado-executor"), 4
# Rows of the table in README.md, of the part "one".
SHOWN = ("ab", "browser", "upload", "flask", "django", "sleeper")
# Width of published lines, in characters.
WIDTH = 130
COLOURS = {"tapster": "#c2410c", "tapster x1": "#c2410c", "tapster x4": "#c2410c", "native": "#a8a29e", "epoll": "#a8a29e"}
COLOUR = "#57728f"


def machine(date, arguments):
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
        "cores": {part.name: [sorted(cores) for cores in part.cores] for part in arguments.parts},
        "rounds": arguments.rounds,
        "quick": arguments.quick,
    }


def good(runs):
    return [run for run in runs if run["done"]]


def median(runs, figure):
    return statistics.median(run[figure] for run in runs)


def spread(runs, figure, form):
    """Median, least and greatest."""
    values = [run[figure] for run in runs]
    return f"{form.format(statistics.median(values))} ({form.format(min(values))}–{form.format(max(values))})"


def failure(runs):
    """Why a server has failed a workload; empty if it has not."""
    problems = [run["problem"] for run in runs if run["problem"]]
    errors = sum(run["errors"] for run in runs)
    if problems:
        return problems[0]
    return f"{errors:,} errors in {sum(run['done'] for run in runs):,} requests" if errors else ""


def ratio(runs, base, figure):
    """The median of a figure's ratio to the base's in the same round, and the least and greatest; None without figures."""
    others = {run["round"]: run[figure] for run in base}
    ratios = [run[figure] / others[run["round"]] for run in runs if run[figure] and others.get(run["round"])]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def table(part, by_name):
    """One workload: the servers in the order of the run."""
    lines = [
        "| server | requests/s | ÷ Tapster | p50 ms | p99 ms | CPU us/request | ÷ Tapster | memory MB | errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    base = by_name.get(BASES[part], [])
    for name, runs in by_name.items():
        some = good(runs)
        cells = ["-"] * 7
        if some:
            against = [ratio(runs, base, figure) for figure in ("rate", "cpu")]
            rate, cpu = (f"{it[0]:.2f} ({it[1]:.2f}–{it[2]:.2f})" if it else "-" for it in against)
            cells = [
                spread(some, "rate", "{:,.0f}"),
                rate,
                f"{median(some, 'p50'):.2f}",
                f"{median(some, 'p99'):.2f}",
                spread(some, "cpu", "{:,.1f}"),
                cpu,
                f"{median(some, 'memory') / 1e6:.0f}",
            ]
        fails = failure(runs)
        lines.append(f"| {name} | {' | '.join(cells)} | {'**fails**: ' + fails if fails else '0'} |")
    return "\n".join(lines)


def summary(results, part, keys=tuple(WORKLOADS), hidden=()):
    """CPU per request of every server against Tapster, workloads (those of `keys`) down, servers (but `hidden`) across."""
    base = BASES[part]
    labels = [label for (other, _), rows in results.items() if other == part for label in rows]
    peers = [label for label in dict.fromkeys(labels) if label not in (base, *hidden)]
    lines = [f"| workload | {base} req/s | {base} us | " + " | ".join(peers) + " |", "|---|---:|---:" + "|---:" * len(peers) + "|"]
    for key in keys:
        rows = results.get((part, key))
        if not rows:
            continue
        cells = []
        for name in peers:
            against = ratio(rows.get(name, []), rows.get(base, []), "cpu")
            fails = name in rows and failure(rows[name])
            cells.append("-" if name not in rows else "fails" if fails else f"{against[0]:.2f}" if against else "-")
        some = good(rows.get(base, []))
        own = [f"{median(some, 'rate'):,.0f}", f"{median(some, 'cpu'):.1f}"] if some else ["-", "-"]
        own[0] += " (fails)" if failure(rows.get(base, [])) else ""
        lines.append(f"| {WORKLOADS[key].title} | {' | '.join(own + cells)} |")
    return "\n".join(lines)


def verdict(results):
    """What the figures say, also where that is not what one would like."""
    behind, rows_of_one = [], {key: rows for (part, key), rows in results.items() if part == "one"}
    for key, rows in rows_of_one.items():
        for name, runs in rows.items():
            against = None if name in ("tapster", *servers.YARDSTICKS) or failure(runs) else ratio(runs, rows.get("tapster", []), "cpu")
            if against and against[0] < 1:
                behind.append(f"{WORKLOADS[key].title}: {name} {against[0]:.2f} ({against[1]:.2f}–{against[2]:.2f})")
    failed = [WORKLOADS[key].title for key, rows in rows_of_one.items() if failure(rows.get("tapster", []))]
    lines = [f"- Workloads with one worker each: {len(rows_of_one)}. Tapster fails: {', '.join(failed) or 'none'}."]
    lines += [f"- CPU time per request below every peer that passes: in all but these: {'; '.join(behind)}." if behind else "- CPU time per request below every peer that passes, in every one."]
    for key, rows in rows_of_one.items():
        if "native" in rows and "tapster" in rows and key in ("ab", "wrk", "browser"):
            share = ratio(rows["native"], rows["tapster"], "cpu")
            lines += [f"- {WORKLOADS[key].title}: the same loop without Python needs {share[0]:.0%} ({share[1]:.0%}–{share[2]:.0%}) of the CPU time."] if share else []
    rows = rows_of_one.get("ab", {})
    shares = {name: ratio(rows[name], rows.get("tapster", []), "rate") for name in SEEDS if name in rows}
    told = [f"{name} {1 / share[0]:.1f}" for name, share in shares.items() if share]
    if told:
        lines.append(f"- `ab -n 100000 -c 25`, Tapster's requests/s divided by those of ({TIMES} wanted): {', '.join(told)}.")
    rows = results.get(("four", "ab-2"), {})
    for figure, what, form in (("rate", "requests/s of one Tapster worker divided by those of four of", "rate"), ("cpu", "CPU time of four of theirs divided by that of one Tapster worker", "cpu")):
        shares = {name: ratio(rows.get(f"{name} x4", []), rows.get("tapster x1", []), figure) for name in SEEDS}
        told = [f"{name} {1 / share[0] if form == 'rate' else share[0]:.2f}" for name, share in shares.items() if share]
        if told:
            lines.append(f"- Two `ab` processes, {what} (1.33 wanted): {', '.join(told)}.")
    return "\n".join(lines)


def plot(results, part, figure, title, form):
    """Bars: a panel for each workload, a bar for each server, as SVG."""
    panels = [(load.title.replace("`", ""), results[part, key]) for key, load in WORKLOADS.items() if (part, key) in results]
    width, columns, bar, label = 430, 2, 17, 118
    height = max((len(rows) for _, rows in panels), default=0) * bar + 44
    whole = f"{width * columns + 20} {-(-len(panels) // columns) * height + 50}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="20" y="28" font-size="16" font-weight="bold">{escape(PARTS[part])}: {escape(title)}</text>',
    ]
    for number, (heading, rows) in enumerate(panels):
        x, y = 20 + number % columns * width, 58 + number // columns * height
        parts.append(f'<text x="{x}" y="{y}" font-weight="bold">{escape(heading)}</text>')
        values = {name: median(good(runs), figure) if good(runs) else 0 for name, runs in rows.items()}
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


def where(facts):
    """Date, machine and interpreter."""
    return f"{facts['date']}: {facts['cpu']}, {facts['count']} cores, Linux {facts['kernel']}, Python {facts['python']}"


def setting(facts):
    """The sentence on machine and versions."""
    packages = {kind.package for kind in servers.KINDS.values() if kind.package} | {"flask", "django"}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts["versions"].items()) if name in packages)
    cores = "; ".join(f"{PARTS[part].lower()}: servers on {cores[0]}, clients on {cores[1]}" for part, cores in facts["cores"].items())
    return (
        f"{where(facts)}, "
        f"Tapster {facts['tapster']}, {versions}. {facts['rounds']} interleaved round(s){', shortened runs' if facts['quick'] else ''}; "
        f"medians, least and greatest in brackets. A sample takes {Scale.seconds} s (`ab`: {Scale.longest} s or all its requests). Cores: {cores}."
    )


def arrange(rows):
    """(part, workload) to server to samples in the order of the rounds; servers in the order of their list."""
    results = {}
    order = [*servers.KINDS, "tapster x1", "tapster x4", *(f"{name} x4" for name in servers.KINDS if name != "tapster")]
    for row in sorted(rows, key=lambda row: (order.index(row["server"]), row["round"])):
        results.setdefault((row["part"], row["workload"]), {}).setdefault(row["server"], []).append(row)
    return {(part, key): results[part, key] for part in PARTS for key in WORKLOADS if (part, key) in results}


def write(facts, rows, out, publish):
    """Writes results.md and the plots, prints the summary; with `publish` also to the repository, COSTS.md and README.md."""
    results = arrange(rows)
    found = [part for part in PARTS if any(other == part for other, _ in results)]
    text = [f"# Comparison\n\n{setting(facts)}\n", "How the servers were started:\n"]
    ran = {row["server"].partition(" ")[0] for row in rows}
    text += [f"- {name}: {kind.note}" for name, kind in servers.KINDS.items() if kind.note and name in ran]
    text += ["\n## In short\n", verdict(results)]
    short = [setting(facts), "", verdict(results), ""]
    for part in found:
        heading = f"{PARTS[part]}: CPU time per request divided by Tapster's (1.50: half as much again; fails: some answers were missing or wrong):\n"
        text += [f"\n## {PARTS[part]}\n", heading, summary(results, part)]
        short += [heading, summary(results, part), ""]
        for (other, key), by_name in results.items():
            if other == part:
                text += [f"\n### {WORKLOADS[key].title}\n", table(part, by_name)]
    print("\n".join(short))
    for place in [out, RESULTS] if publish else [out]:
        place.mkdir(parents=True, exist_ok=True)
        (place / "results.md").write_text("\n".join(text) + "\n")
        (place / "results.json").write_text(json.dumps(facts) + "\n" + "\n".join(map(json.dumps, rows)) + "\n")
        for part in found:
            for file, (figure, title, form) in PLOTS.items():
                (place / f"{part}-{file}").write_text(plot(results, part, figure, title, form))
    if publish:
        images = [f"![{PARTS[part]}: {title}](results/{part}-{file})" for part in found for file, (_, title, _) in PLOTS.items()]
        put(COSTS, "\n".join([*short, *images, "", "All figures: [results/results.md](results/results.md)."]))
        put(README, f"{where(facts)}.\n\n{summary(results, 'one', SHOWN, servers.YARDSTICKS)}")


def put(path, text):
    """Replaces the published part of a document."""
    old = path.read_text()
    begin, end = old.find(BEGIN), old.find(END)
    if -1 in (begin, end):
        common.fail(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{old[:begin]}{BEGIN}\n\n{wrapped(text)}\n\n{old[end:]}")


def wrapped(text):
    """Prose and lists in lines of WIDTH characters; tables and images as they are."""
    lines = []
    for line in text.split("\n"):
        indent = "  " if line.startswith("- ") else ""
        fixed = line.startswith(("|", "![")) or not line
        lines += [line] if fixed else textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
