"""A hook of MkDocs: pages of the repository that lie outside docs/, and links to its files.

Links are written for the repository: `../README.md`, `../trainer/models/lbf.py`.  The site has
the README and its kin as pages; of a link to any other file it shows the path.  A link to a file
that is not there fails the strict build, and so does a page that loads anything from elsewhere.
"""

import os.path
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository and their pages; README.md would be taken for the index."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
LOADED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]+)')
log = get_plugin_logger("links")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page into such as the site can follow."""
    inside = os.path.dirname(page.file.src_uri)
    outside = page.file.src_uri in PAGES.values()

    def turned(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups(default="")
        if ":" in target:
            return link[0]
        path = os.path.normpath(os.path.join("" if outside else f"docs/{inside}", target))
        if path in PAGES or path.startswith("docs/"):
            to = PAGES.get(path) or path.removeprefix("docs/")
            return f"{image}[{text}]({os.path.relpath(to, inside or '.')}{anchor})"
        if not (ROOT / path).exists():
            log.warning(f"{page.file.src_uri} links to {target}, which is not there")
        return text if path in text else f"{text} (`{path}`)"

    return LINK.sub(turned, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Hold that a page loads nothing from elsewhere."""
    for address in LOADED.findall(output):
        log.warning(f"{page.file.src_uri} loads {address}")
    return output
