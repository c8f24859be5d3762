"""Infers splits and classes of photos from the directory structure, or from a list's classes."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from pipelines.sources.base import SourceError, generator
from pipelines.sources.folder.discovery import DiscoveredFiles, abbreviated, printable

TEST_FRACTION = 0.2
"""Fraction of each class that becomes the test set where a folder has none of its own."""

LAYOUTS = ("auto", "classes", "splits", "flat")
"""How folders are read: by their names, each as a class, by splits alone, or without labels."""

_ROLES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "holdout": "val",
    "unsup": "unlabelled",
    "unsupervised": "unlabelled",
    "unlabeled": "unlabelled",
    "unlabelled": "unlabelled",
    "labeled": "labelled",
    "labelled": "labelled",
}
"""What a folder holds, by the word in its name that says so."""
_FILLERS = frozenset(
    ("", "data", "dataset", "image", "images", "img", "imgs", "jpeg", "jpg", "photos", "png", "seg")
)
"""Words that may stand next to such a word, as in `seg_train`, `train_images` and `val2017`."""
_KNOWN_NAMES = (
    "train/, training_set/, ...; test/, val/, valid/, validation/, test_set/, ...; unlabelled/; "
    "labelled/"
)
_LETTERS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
"""Words: runs of letters, and within them those that begin with a capital, as in `TrainImages`."""
_ROLE = re.compile(f"({'|'.join(sorted(_ROLES, key=len, reverse=True))})s?")
"""A split's word anywhere in a name, as in `xtrain` and `Trainingsdaten`."""
_PARTS = frozenset(
    ("batch", "chunk", "fold", "folds", "part", "parts", "shard", "split", "splits", "volume")
)
"""Words of numbered folders that are parts of one set, to be tested on in turn."""
_DERIVED = frozenset(
    (
        *("mask", "masks", "label", "labels", "annotation", "annotations", "thumb", "thumbs"),
        *("groundtruth", "gt", "segmentation", "segmentations", "trimaps", "truth"),
    )
)
"""Words of folders that hold what was made of the photos next to them."""
_DATE = re.compile(
    r"((19|20)\d\d([-_. ]?(0[1-9]|1[0-2])([-_. ]?[0-3]\d)?)?"
    r"|[0-3]?\d[-_. ][0-3]?\d[-_. ](19|20)\d\d)([-_. ].*)?"
    r"|photos from (19|20)\d\d",  # of Google Takeout
    re.DOTALL | re.IGNORECASE,
)
_MONTH = re.compile(
    r"(\d{1,2}[-_. ]*)?(january|february|march|april|may|june|july|august|september|october|"
    r"november|december)([-_. ]*(19|20)\d\d)?",
    re.I,
)
_ENDS_IN_YEAR = re.compile(r".*[-_. (](19|20)\d\d\)?", re.DOTALL)
_CAMERA = re.compile(r"[1-9]\d\d[A-Z_][0-9A-Z_]{4}|dcim|camera|camera roll|screenshots", re.I)
"""Folders as cameras name them: `100APPLE`, `101_PANA`."""

_ALL_UNLABELLED = (
    'the unlabelled photos are all of them without their labels; data.pretrain "train" '
    "keeps the test photos out"
)

_Classes = dict[str, list[str]]


@dataclass
class Layout:
    """Splits and labels of photos.

    Attributes:
        files: for each split that there is, paths below the root.
        labels: int64, for "train" and "test".
        class_names: ascending; empty where there are no labels.
        unlabelled_from: the splits that make up the unlabelled photos.
        notes: lines for people.
        divided: whether train and test were drawn by the seed.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    unlabelled_from: tuple[str, ...] = ("unlabelled",)
    notes: list[str] = field(default_factory=list)
    divided: bool = False

    @property
    def class_counts(self) -> dict[str, int]:
        """Returns the number of photos of each class, in train and test together."""
        counts = np.zeros(len(self.class_names), np.int64)
        for labels in self.labels.values():
            counts += np.bincount(labels, minlength=len(counts))[: len(counts)]
        return dict(zip(map(printable, self.class_names), counts.tolist(), strict=True))


def lay_out(files: DiscoveredFiles, seed: int, choice: str = "auto") -> Layout:
    """Sorts photos into splits and classes.

    In a folder, subfolders of splits are recognised by their names in any letter case, `train/`,
    `training_set/`, `valid/`, ...; each may be absent. Photos next to `labelled/` are unlabelled.
    Without any, two or more folders side by side are classes; folders that are named by dates or
    cameras, and anything else, are unlabelled photos. In a list, photos with a class are divided as
    class folders are, the others are unlabelled.

    Args:
        files: the photos.
        seed: of the split into train and test, where there is none.
        choice: one of `LAYOUTS`; all but "auto" say what a folder's subfolders are.

    Raises:
        SourceError: no photos; one class only; test classes that train has not; the root lies one
            folder deeper; subfolders that may be splits or classes; a choice that doesn't fit.
    """
    if not files.sizes:
        raise SourceError(f"data.root: {files.no_photos_message()}")
    if choice == "flat":
        return _all_unlabelled(files)
    if files.list_file is None:
        return _lay_out_folder(files, seed, choice)
    if choice != "auto":
        raise SourceError(
            f'data.layout: expected "auto" or "flat" for a list of photos; received "{choice}"'
        )
    return _lay_out_list(files, seed)


def _lay_out_folder(files: DiscoveredFiles, seed: int, choice: str) -> Layout:
    by_top: _Classes = defaultdict(list)
    for path in files.sizes:
        if "/" in path:
            by_top[path.split("/", 1)[0]].append(path)
    roles = {top: role for top in by_top if (role := role_of(top)) is not None}
    if choice == "classes":
        return _lay_out_classes(files, by_top, seed)
    if choice == "splits" and not roles:
        raise SourceError(
            f'data.layout is "splits", and {files.folder} has no folder that is named like one: '
            f"{_KNOWN_NAMES}"
        )
    if choice == "auto":
        _check_is_unambiguous(files, by_top, roles)
    if roles:
        return _lay_out_splits(files, by_top, roles, seed)
    loose = sum("/" not in path for path in files.sizes)
    if len(by_top) < 2 or loose:
        return _all_unlabelled(files, by_top, loose)
    if _are_albums(by_top):
        layout = _all_unlabelled(files)
        layout.notes.append(
            f"folders named by date or camera ({abbreviated(by_top)}) are no classes; "
            "data.layout=classes makes them some"
        )
        return layout
    return _lay_out_classes(files, by_top, seed)


def _words(name: str) -> list[str]:
    words = (word.lower().removesuffix("set") for word in _LETTERS.findall(name))
    return [word for word in words if word not in _FILLERS]


def role_of(name: str) -> str | None:
    """Returns what a folder of this name holds; None where its name doesn't say."""
    words = _words(name)
    return _ROLES.get(words[0]) if len(words) == 1 else None


def roles_in(name: str) -> set[str]:
    """Returns the splits that any word of a name says, as in `photos-train-00000.tar`."""
    return {_ROLES[word] for word in _words(name) if word in _ROLES}


def _similar_role(name: str) -> str | None:
    """Returns the role of the first or last word of a name: `train_old`, `my_test`; else None."""
    words = _words(name)
    return _ROLES.get(words[0]) or _ROLES.get(words[-1]) if len(words) > 1 else None


def _differing_in_role(names: Collection[str]) -> list[str]:
    """Returns the names that others equal but for a split's word: `x_train`, `x_test`."""
    by_rest: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        found = {_ROLES[word] for word in _ROLE.findall(name.lower())}
        if len(found) == 1:
            by_rest[_ROLE.sub("", name.lower())][found.pop()].add(name)
    alike = [roles.values() for roles in by_rest.values() if len(roles) > 1]
    return [name for roles in alike for names in roles for name in names]


def _is_album(name: str) -> bool:
    return bool(_DATE.fullmatch(name) or _CAMERA.fullmatch(name))


def _are_albums(names: Iterable[str]) -> bool:
    """Returns whether all names are dates or cameras; a month alone, as May, may be a class."""
    return all(_is_album(name) or _MONTH.fullmatch(name) for name in names)


def _all_unlabelled(
    files: DiscoveredFiles, by_top: Mapping[str, list[str]] | None = None, loose: int = 0
) -> Layout:
    """Returns the layout without labels; with `by_top`, notes what else folders might be."""
    layout = Layout(files={"unlabelled": list(files.sizes)})
    layout.notes.append("all photos are unlabelled: there is no probe (it needs class folders)")
    folders = by_top or {}
    if len(folders) >= 2:
        layout.notes.append(
            f"{loose:,} photo(s) lie next to the folders ({abbreviated(folders)}); with "
            "data.layout=classes each folder is a class, and those are skipped"
        )
    elif len(folders) == 1:
        top = next(iter(folders))
        below = {path.split("/")[1] for path in folders[top] if path.count("/") > 1}
        if len(below) >= 2 and not _are_albums(below):
            layout.notes.append(
                f"if the folders in {printable(top)}/ ({abbreviated(below)}) are classes, "
                f"data.root should be {files.folder / printable(top)}"
            )
    return layout


def _lay_out_classes(files: DiscoveredFiles, by_top: Mapping[str, list[str]], seed: int) -> Layout:
    classes: _Classes = defaultdict(list)
    for top, paths in by_top.items():
        classes[_normalized(top)] += paths
    if len(classes) < 2:
        raise SourceError(
            f'data.layout is "classes", which takes two folders or more; {files.folder} has '
            f"{len(classes)}"
        )
    layout = Layout(unlabelled_from=("train", "test"))
    layout.notes.append(
        f"each folder is a class; {TEST_FRACTION:.0%} of each, chosen by the seed, are the test set"
    )
    layout.notes.append(_ALL_UNLABELLED)
    if loose := sum("/" not in path for path in files.sizes):
        layout.notes.append(f"skipped: {loose:,} photo(s) in no folder, which have no class")
    nested = [path for paths in by_top.values() for path in paths if path.count("/") > 1]
    if nested:
        layout.notes.append(
            f"classes hold folders ({printable(nested[0].rpartition('/')[0])}): the upper one "
            "names the class"
        )
    _divide(layout, classes, "the folder", seed)
    return layout


def _lay_out_list(files: DiscoveredFiles, seed: int) -> Layout:
    layout = Layout()
    classes: _Classes = defaultdict(list)
    for path in files.sizes:
        if path in files.class_of:
            classes[files.class_of[path]].append(path)
        else:
            layout.files.setdefault("unlabelled", []).append(path)
    if len(classes) == 1:
        name = printable(next(iter(classes)))
        raise SourceError(
            f"data.root: {files.list_file} has one class ({name}); a probe needs two or more. "
            "Photos without a class are unlabelled"
        )
    if not classes:
        layout.notes.append("a list without classes: there is no probe")
        return layout
    layout.notes.append(
        f"{TEST_FRACTION:.0%} of each class of the list, chosen by the seed, are the test set"
    )
    if "unlabelled" not in layout.files:
        layout.notes.append(_ALL_UNLABELLED)
        layout.unlabelled_from = ("train", "test")
    _divide(layout, classes, "the list", seed)
    return layout


def _check_is_unambiguous(
    files: DiscoveredFiles, by_top: Mapping[str, list[str]], roles: Mapping[str, str]
) -> None:
    """Raises SourceError where folders may be splits or classes, or classes or albums."""

    def fail(text: str) -> NoReturn:
        raise SourceError(
            f"data.root: {files.folder} has {text}. Set data.layout: classes (each folder is a "
            "class), splits (folders with other names are skipped) or flat (no labels). Splits are "
            f"recognised by their names: {_KNOWN_NAMES}"
        )

    splits, others = set(roles.values()), [top for top in by_top if top not in roles]
    similar = {top: role for top in others if (role := _similar_role(top)) is not None}
    # Classes may be called `test_tube` and `steam train`, if there are others too.
    all_similar = len(similar) == len(by_top) and len(set(similar.values())) > 1
    # Next to labelled/ all others are unlabelled, whatever they are called.
    if (similar and splits - {"labelled"}) or all_similar:
        fail(f"{abbreviated(similar)}, named nearly like splits")
    if alike := _differing_in_role(others):
        fail(f"{abbreviated(alike)}, named nearly like splits")
    if "labelled" in splits and "train" in splits:
        fail(f"both {abbreviated(top for top in roles if roles[top] in ('labelled', 'train'))}")
    flat = all(path.count("/") == 1 for top in roles for path in by_top[top])
    # `train/`, of locomotives, next to `bus/` and `car/`; `valid/` next to `broken/`
    asked = splits <= {"train", "test", "val"} and (flat or "train" not in splits)
    # `unlabeled/` next to `cats/` and `dogs/`, which would be skipped
    if roles and others and (asked or splits == {"unlabelled"}):
        splits_found = abbreviated(f"{top}/" for top in roles)
        fail(f"{splits_found} next to {abbreviated(others, 3)}")
    if roles:
        return
    loose = any("/" not in path for path in files.sizes)
    if len(by_top) > 1 and not loose and (text := _why_no_classes(by_top)) is not None:
        fail(text)
    inner = {
        path.split("/")[1] for paths in by_top.values() for path in paths if path.count("/") > 1
    }
    if len(by_top) > 1 and len({role_of(name) for name in inner} & {"train", "test", "val"}) > 1:
        fail(
            f"{abbreviated(inner)} in each of {abbreviated(by_top, 3)}; splits are read the other "
            "way round, train/<class>/"
        )
    _check_is_no_parent(files, by_top)


def _why_no_classes(names: Collection[str]) -> str | None:
    """Returns what else folders may be, none of which is named like a split; None for classes."""
    if {"gallery", "query"} <= {name.lower() for name in names}:
        return "gallery/ and query/, as sets to search in have them"
    words = {name: _words(name) for name in names}
    if all(each and _PARTS.issuperset(each) for each in words.values()) or _are_numbered(words):
        return f"{abbreviated(names)}, named like parts of one set"
    derived = [name for name in names if _DERIVED.intersection(words[name])]
    photos = [name for name in names if not words[name] and _LETTERS.search(name)]
    if derived and photos and len(derived) + len(photos) == len(names):
        return (
            f"{abbreviated(derived)} next to {abbreviated(photos)}, of which they may be made; as "
            "data.root that folder alone has the photos"
        )
    albums = [name for name in names if _is_album(name)]
    if albums and not _are_albums(names):
        rest = [name for name in names if name not in albums]
        return f"{abbreviated(albums)}, named like albums, next to {abbreviated(rest, 3)}"
    if not albums and all(map(_ENDS_IN_YEAR.fullmatch, names)):
        return f"{abbreviated(names)}, which may be albums of a year, or classes"
    return None


def _are_numbered(words: Mapping[str, list[str]]) -> bool:
    """Returns whether names differ in digits alone, and say no more than "images" or "part".

    As `images_001` and `images_002`, or `ham_part_1` and `ham_part_2`, but not `c0` and `c1`.

    Args:
        words: name -> its words.
    """
    return (
        len(words) > 1
        and len({re.sub(r"\d+", "", name) for name in words}) == 1
        and all(
            _LETTERS.search(name) is not None and (not each or not _PARTS.isdisjoint(each))
            for name, each in words.items()
        )
    )


def _check_is_no_parent(files: DiscoveredFiles, by_top: Mapping[str, list[str]]) -> None:
    """Raises SourceError where what was meant is the only subfolder, or that one's only one."""
    folders = {path.rpartition("/")[0] for path in files.sizes}
    parts = [folder.split("/") for folder in folders if folder]
    if len(parts) < len(folders):  # there are photos in the folder itself
        return
    for depth in range(1, min(map(len, parts), default=0) + 1):
        if len({tuple(part[:depth]) for part in parts}) > 1:
            return
        inner = {part[depth] for part in parts if len(part) > depth}
        if splits := sorted(name for name in inner if role_of(name) is not None):
            top = "/".join(map(printable, parts[0][:depth]))
            raise SourceError(
                f"data.root: {files.folder} holds only {top}/, which has "
                f"{' and '.join(f'{printable(name)}/' for name in splits)}; data.root should be "
                f"{files.folder / top}"
            )


def _lay_out_splits(
    files: DiscoveredFiles,
    by_top: Mapping[str, list[str]],
    roles: Mapping[str, str],
    seed: int,
) -> Layout:
    """Returns the layout of a folder with subfolders that are splits."""
    layout = Layout()
    paths: _Classes = defaultdict(list)
    for top, role in roles.items():
        paths[role] += by_top[top]
    others = [path for path in files.sizes if path.split("/", 1)[0] not in roles]
    if "labelled" in paths:
        if "train" not in paths:
            paths["unlabelled"] = sorted([*paths["unlabelled"], *others])
            others = []
        roles = {top: "train" if role == "labelled" else role for top, role in roles.items()}
        paths["train"] += paths.pop("labelled")
    if others:
        tops = {path.split("/", 1)[0] for path in others if "/" in path}
        layout.notes.append(
            f"skipped: {len(others):,} photo(s) that lie in no split"
            + (f" ({abbreviated(tops)})" if tops else "")
        )
    test, val = (bool(_class_folders(paths.get(split, []))[0]) for split in ("test", "val"))
    if "test" in paths and val and not test:  # as ImageNet and competitions have them
        layout.notes.append(
            f"{_folders(roles, 'test')} is skipped: it has no class folders, and "
            f"{_folders(roles, 'val')} has"
        )
        del paths["test"]
        roles = {top: role for top, role in roles.items() if role != "test"}
    if "test" in paths and "val" in paths:
        layout.notes.append(f"{_folders(roles, 'val')} is skipped: there is test/")
        del paths["val"]
    elif "val" in paths:
        roles = {top: "test" if role == "val" else role for top, role in roles.items()}
        paths["test"] = paths.pop("val")
    paths = {split: paths[split] for split in paths if paths[split]}
    layout.notes.append(
        "splits: "
        + "; ".join(
            f"{split} from {_folders(roles, split) or 'all others'}" for split in sorted(paths)
        )
    )
    _assign_splits(layout, paths, roles, seed)
    return layout


def _folders(roles: Mapping[str, str], split: str) -> str:
    """Returns the names of a split's folders."""
    return abbreviated(f"{top}/" for top in roles if roles[top] == split)


def _assign_splits(
    layout: Layout, paths: Mapping[str, list[str]], roles: Mapping[str, str], seed: int
) -> None:
    """Fills the layout from the paths of "unlabelled", "train" and "test"."""
    if "unlabelled" in paths:
        layout.files["unlabelled"] = paths["unlabelled"]
    labelled: dict[str, _Classes] = {}
    for split in ("train", "test"):
        if split not in paths:
            continue
        name = _folders(roles, split)
        classes, flat = _class_folders(paths[split])
        if len(classes) == 1:
            raise SourceError(
                f"data.root: {name} has one class folder ({printable(next(iter(classes)))}); a "
                "probe needs two or more. Photos without classes belong into unlabelled/"
            )
        if classes:
            labelled[split] = classes
            if flat:
                layout.notes.append(
                    f"skipped: {len(flat):,} photo(s) directly in {name}, which have no class"
                )
        elif split == "train" and "unlabelled" not in paths:
            layout.files["unlabelled"] = flat
            layout.notes.append(
                f"{name} has no class folders: its photos are unlabelled, and there is no probe"
            )
        else:
            layout.notes.append(
                f"{name} has no class folders: its {len(flat):,} photo(s) are skipped"
            )
    if len(labelled) == 2:
        _check_same_classes(layout, labelled["train"], labelled["test"], _folders(roles, "train"))
        layout.class_names = tuple(sorted(labelled["train"]))
        for split, classes in labelled.items():
            _add_labelled(layout, split, classes)
    elif labelled:
        split, classes = next(iter(labelled.items()))
        other, name = "test" if split == "train" else "train", _folders(roles, split)
        layout.notes.append(
            f"there is no {other}/: {TEST_FRACTION:.0%} of each class of {name}, chosen by the "
            "seed, are the test set"
        )
        _divide(layout, classes, name, seed)
    if not layout.files:
        raise SourceError(
            "data.root: there are test photos without class folders and nothing to learn from; "
            "unlabelled/ or train/<class>/ is needed"
        )


def _is_in_between(name: str) -> bool:
    return role_of(name) is not None or bool(_LETTERS.search(name) and not _words(name))


def _class_folders(paths: list[str]) -> tuple[_Classes, list[str]]:
    """Returns the photos of `split/<class>/` by class, and those that lie in no class folder.

    A folder in between, as in `seg_train/seg_train/<class>/` and `train/images/`, is no class.
    """
    names = [path.split("/") for path in paths]
    inner = {parts[1] for parts in names if len(parts) > 2}
    depth = 1
    if len(inner) == 1 and _is_in_between(*inner):
        depth = 2
    classes: _Classes = defaultdict(list)
    flat = []
    for path, parts in zip(paths, names, strict=True):
        if len(parts) > depth + 1:
            classes[_normalized(parts[depth])].append(path)
        else:
            flat.append(path)
    return dict(classes), flat


def _normalized(name: str) -> str:
    """Returns the form that names have in common which differ only in how accents are encoded."""
    return unicodedata.normalize("NFC", name)


def _check_same_classes(layout: Layout, train: _Classes, test: _Classes, origin: str) -> None:
    """Raises SourceError for test classes without train photos; notes the opposite."""
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise SourceError(
            f"data.root: classes of the test photos that {origin} has not: {abbreviated(unknown)}; "
            f"{origin} has {abbreviated(train)}"
        )
    absent = sorted(set(train) - set(test))
    if absent:
        layout.notes.append(f"no test photos of {len(absent)} class(es): {abbreviated(absent)}")


def _divide(layout: Layout, classes: Mapping[str, list[str]], origin: str, seed: int) -> None:
    """Divides one labelled set into train and test."""
    rng = generator(seed, "train and test")
    train: _Classes = {}
    test: _Classes = {}
    for name in sorted(classes):
        paths = classes[name]
        order = rng.permutation(len(paths))
        # A class of one photo has a train photo and no test photo.
        count = min(max(1, round(TEST_FRACTION * len(paths))), len(paths) - 1)
        test[name] = [paths[index] for index in sorted(order[:count])]
        train[name] = [paths[index] for index in sorted(order[count:])]
    if not any(test.values()):
        layout.notes.append(
            f"each class of {origin} has one photo: they are unlabelled, and there is no probe"
        )
        layout.files.setdefault("unlabelled", []).extend(
            path for name in sorted(classes) for path in classes[name]
        )
        layout.unlabelled_from = ("unlabelled",)
        return
    layout.class_names, layout.divided = tuple(sorted(classes)), True
    _add_labelled(layout, "train", train)
    _add_labelled(layout, "test", test)


def _add_labelled(layout: Layout, split: str, classes: _Classes) -> None:
    names = sorted(classes)
    labels = {name: label for label, name in enumerate(layout.class_names)}
    layout.files[split] = [path for name in names for path in classes[name]]
    layout.labels[split] = np.repeat(
        [labels[name] for name in names], [len(classes[name]) for name in names]
    ).astype(np.int64)
