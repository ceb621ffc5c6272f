"""The site of `make docs`: the repository's documents as pages beside docs/.

Links in the documents are the repository's, and become the site's here.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = {"README.md": "index.md"}
COPIED = ("README.md", "CITATION.cff", "results/**/*", "configs/*",
          "initializations/*/README.md", "initializations/*/result.json")
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
# What a browser would fetch from elsewhere by itself.
FETCHED = re.compile(r"<(?!a\b)[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


def on_files(files, config):
    """Add the documents that lie outside docs/."""
    for copied in COPIED:
        for file in sorted(ROOT.glob(copied)):
            path = file.relative_to(ROOT).as_posix()
            if file.is_file():
                files.append(File.generated(
                    config, HOME.get(path, path), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Make a link's target a path in the site."""
    source = page.file.src_uri
    by_place = {v: k for k, v in HOME.items()}
    own = by_place.get(source, source if (ROOT / source).exists()
                       else f"docs/{source}")

    def rewritten(match):
        target = posixpath.normpath(
            posixpath.join(posixpath.dirname(own), match[2]))
        if os.path.isdir(ROOT / target):
            target = posixpath.join(target, "README.md")
            if not (ROOT / target).exists():  # Nothing to show in a site.
                return match[1]
        target = HOME.get(target, target.removeprefix("docs/"))
        return f"[{match[1]}](" + posixpath.relpath(
            target, posixpath.dirname(source) or ".") + (match[3] or "") + ")"

    return LINK.sub(rewritten, markdown)


def on_post_page(output, page, config):
    """Refuse a page that asks another host for something."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} fetches {found[0]}")
    return output
