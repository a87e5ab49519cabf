"""Templates of this package, filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail.report.page import cell, copy_button, table


def fill(name: str, **values: Any) -> str:
    """HTML of the template ``name``; values are escaped, and one that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def trusted(make: Any) -> Any:
        return lambda *args, **kwargs: Markup(make(*args, **kwargs))

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update({f.__name__: trusted(f) for f in (cell, copy_button, table)})
    return environment.get_template(name).render(values)
