"""Every key that a catalog may hold, once: the loader refuses what is not here, the JSON schema is made of it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

NETWORKS = ("default", "none", "host")
PREFIX = "x-"


class Key(Struct, frozen=True):
    """One key. `kind` is the shape of its value:

    text, flag; texts: one text or a list; pairs: a mapping, or a list of NAME=VALUE; map: a mapping of texts;
    network, version: one of few words; mapping, matrix, bootstrap, defaults, groups, images: shapes of their own.
    """

    name: str
    kind: str
    about: str
    required: bool = False


def _table(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}


TOP = _table(
    Key("version", "version", "The version of this format, 1."),
    Key("result", "text", "A file that takes the names of the built images, one a line."),
    Key("pfsd_rpm", "text", "The package that engines get as build argument PFSRPM (default: bash)."),
    Key("registry", "text", "What stands before the name of an image when it is pushed: host[:port][/namespace]."),
    Key("tag", "text", "The tag of names that have none, instead of latest or an automatic one."),
    Key("variables", "map", "Values of ${NAME} where the environment has none."),
    Key("defaults", "defaults", "Keys that every image has unless it writes its own; mappings are merged."),
    Key("groups", "groups", "Names for several images; the group default is what is made where nothing is named."),
    Key("images", "images", "The images.", required=True),
)

# What images of every form know.
_SHARED = (
    Key("args", "pairs", "Build arguments; one without a value takes it from the environment."),
    Key("labels", "pairs", "Labels of the image."),
    Key("annotations", "pairs", "Annotations of the manifest."),
    Key("platforms", "texts", "The platforms to build for, os/architecture[/variant]."),
    Key("target", "text", "The stage to build (default: the last)."),
    Key("network", "network", "The network of RUN steps."),
    Key("contexts", "map", "Named contexts: a folder, a git URL, docker-image://NAME, oci-layout://..., target:ID."),
    Key("sources", "map", "Git repositories that appear in the context: path to URL#ref[:folder]."),
    Key("needs", "texts", "Ids of images that are made first."),
    Key("secrets", "texts", "Secrets of the build: id=ID,src=FILE or id=ID,env=NAME."),
    Key("ssh", "texts", "Agents of the build: default, or ID=SOCKET or ID=KEYFILE."),
    Key("cache_from", "texts", "Shared caches to read: a reference, or type=local,src=FOLDER."),
    Key("cache_to", "texts", "Shared caches to write: a reference, or type=local,dest=FOLDER."),
    Key("outputs", "texts", "Further forms of the result, as --output takes them."),
    Key("no_cache", "flag", "Build every step anew."),
    Key("pull", "flag", "Ask registries for newer base images."),
    Key("push", "flag", "Push the image (default: false; true where there is a type)."),
    Key("enable", "flag", "Build the image (default: true)."),
)
_TYPED = (
    Key("id", "text", "The name of the image in this file, unique.", required=True),
    Key("type", "text", "engine, or manager for an image that is made from an engine.", required=True),
    Key("build_image_name", "text", "The name of the result, [host[:port]/]repository[:tag].", required=True),
    Key("build_image_dockerfile", "text", "The Dockerfile, from the folder of this file.", required=True),
)

ENGINE = _table(
    *_TYPED,
    Key("engine_repo", "text", "The git repository of the source; it appears in the context.", required=True),
    Key("engine_branch", "text", "The branch, tag or commit of it (default: what the RPM says, else HEAD)."),
    Key("engine_config_template", "text", "A file of the repository that appears in the context below rootfs/."),
    Key("engine_release_date", "text", "The date in an automatic tag, yyyymmdd (default: today)."),
    Key("polardb_rpm", "text", "The URL of an RPM whose description tells the branch."),
    *_SHARED,
)
MANAGER = _table(
    *_TYPED,
    Key("engine_image_id", "text", "The id of the engine that this image is made from.", required=True),
    *_SHARED,
)
IMAGE = _table(
    Key("id", "text", "The name of the image in this file, unique."),
    Key("name", "text", "Another word for id."),
    Key("image", "texts", "The names of the result, [host[:port]/]repository[:tag] (default: the id)."),
    Key("context", "text", "The folder of the files, from the folder of this file, or a git or tar URL (default: .)."),
    Key("dockerfile", "text", "The Dockerfile, from the folder of this file or else from the context."),
    Key("dockerfile_inline", "text", "The text of the Dockerfile; write $$ for a $ before a brace."),
    Key("bootstrap", "bootstrap", "A base image of distribution packages; there is no Dockerfile then."),
    Key("base", "text", "The id of the image that this one is made from: FROM base, or build argument BASE_IMAGE."),
    Key("matrix", "matrix", "Values of ${matrix.NAME}; an image is made for each combination."),
    *_SHARED,
)
FORMS = {"engine": ENGINE, "manager": MANAGER, "": IMAGE}

_OWN = frozenset(("id", "name", "type", "image", "build_image_name", "matrix", "engine_image_id"))
DEFAULTS = {
    name: replace(key, required=False) for form in FORMS.values() for name, key in form.items() if name not in _OWN
}

BOOTSTRAP = _table(
    Key("suite", "text", "The distribution's suite, for example bookworm.", required=True),
    Key("include", "texts", "Packages to add."),
    Key("mirror", "text", "The URL of the archive."),
    Key("variant", "text", "What is installed beside them (default: minbase)."),
    Key("components", "text", "Components of the archive, with commas."),
)
# Of these an image has one at most; its own displaces that of the defaults.
RECIPES = ("dockerfile", "dockerfile_inline", "bootstrap")
