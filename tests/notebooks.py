"""Notebooks are executed in a kernel of their own; `python -m tests.notebooks FILE…` saves what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.untraced import untraced

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def executed(path: Path) -> Any:
    """Run a notebook from top to bottom; a cell that fails raises, with its traceback."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", record_timing=False, resources={"metadata": {"path": path.parent}}
    )
    return client.execute(env=untraced())


def printed(notebook: Any) -> str:
    """Return everything that its cells show as text: what they print, and the plain form of what they display."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def _as_in_a_terminal(outputs: list[Any]) -> list[Any]:
    """Put together what was printed piece by piece, and leave of a line that was written anew what is seen at last."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.name == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            lines = output.text.split("\n")
            output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines)
    return joined


def save(path: Path) -> None:
    """Execute a notebook and keep its outputs, without what differs from machine to machine."""
    import nbformat

    notebook = executed(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _as_in_a_terminal(cell.outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        save(Path(name))
