"""What the service and its callers say to each other, with bounds on everything."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

MOST = 10_000
"""Results that one question can have, page by page."""

ROWS = 2**31
"""No gallery has so many pictures."""

UPLOAD_ID = "^[0-9a-f]{32}$"

Row = Annotated[StrictInt, Field(ge=0, lt=ROWS, description="A picture of the gallery.")]
UploadId = Annotated[str, Field(pattern=UPLOAD_ID, description="A picture that was uploaded.")]
Text = Annotated[str, Field(pattern=r"\S", max_length=500)]


class Said(BaseModel):
    """What a caller says: of exactly these types, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Weighted(Said):
    text: Text
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0


class Part(Said):
    """One region of a picture, as if it were all that the picture shows."""

    image: Row | UploadId
    region: Annotated[StrictInt, Field(ge=0, lt=1000, description="As `about` lists them.")]


class SearchQuestion(Said):
    """`cqr search`, with its options; docs/search.md says what they mean."""

    images: Annotated[
        list[Row | UploadId | Part],
        Field(min_length=1, max_length=8, description="Absent: the texts alone are asked."),
    ] = []
    texts: Annotated[list[Weighted], Field(max_length=8)] = []
    nots: Annotated[list[Text], Field(max_length=8)] = []
    more: Annotated[
        list[Row | UploadId], Field(max_length=8, description="Found, and to be nearer to.")
    ] = []
    less: Annotated[
        list[Row | UploadId], Field(max_length=8, description="Found, and to be further from.")
    ] = []
    k: Annotated[int, Field(ge=1, le=200)] = 50
    start: Annotated[
        int, Field(ge=0, lt=MOST, description="Results to pass over: a page begins there.")
    ] = 0
    most: Annotated[
        int, Field(ge=1, le=MOST, description="Results in all, which `sort` sorts.")
    ] = MOST
    sort: (
        Annotated[
            str, Field(max_length=500, description="`path`, or a column; by score where absent.")
        ]
        | None
    ) = None
    descending: bool = False
    beside: Annotated[bool, Field(description="Ask the other run, of `--beside`.")] = False
    keep_references: bool = False
    where: Annotated[str, Field(pattern=r"\S", max_length=500)] | None = None


class AttentionQuestion(Said):
    image: Row | UploadId
    text: Text


class SharesQuestion(SearchQuestion):
    """A question, and one of its results."""

    row: Row


class Answer(Said):
    """What of a question's results is right, and what is not; each a picture of the gallery.

    Marks that are taken back are taken back first, so that a mark can be changed at once.
    """

    reference: Row | UploadId
    text: Text
    right: Annotated[list[Row], Field(max_length=200)] = []
    wrong: Annotated[list[Row], Field(max_length=200)] = []
    none: Annotated[bool, Field(description="No picture of the gallery is right.")] = False
    taken_back: Annotated[
        list[Row], Field(max_length=200, description="No longer marked, whatever they were.")
    ] = []
    none_taken_back: Annotated[bool, Field(description="That none is right no longer holds.")] = (
        False
    )


class Marks(BaseModel):
    """What is marked of the results of one picture with one text."""

    right: list[int]
    wrong: list[int]
    none: bool


class Answers(BaseModel):
    """Rows of the table that is kept, by kind."""

    file: Annotated[str | None, Field(description="Its name; null where none is kept.")]
    right: int
    wrong: int
    none: int


class Problem(BaseModel):
    detail: Annotated[str, Field(description="One sentence.")]


class Health(BaseModel):
    status: str


class Limits(BaseModel):
    upload_bytes: int
    upload_pixels: int
    uploads: Annotated[int, Field(description="So many are kept; the oldest goes first.")]
    seconds: float


class Beside(BaseModel):
    """Another run over the same pictures."""

    run: str
    model: str
    divides: Annotated[bool, Field(description="Whether /api/shares has an answer of it.")]


class Collects(BaseModel):
    """The table that marks are kept in."""

    file: str
    train: Annotated[str, Field(description="The command that learns from it.")]


class DetectorState(BaseModel):
    """Whether new pictures can be asked about."""

    state: Literal["ready", "loading", "absent"]
    seconds: Annotated[float | None, Field(description="Since it is being loaded.")] = None
    why: Annotated[str | None, Field(description="It is absent.")] = None


class Column(BaseModel):
    """What is known of the pictures."""

    name: str
    kind: Literal["text", "number", "flag"]
    values: Annotated[list[str] | None, Field(description="All, where they are few.")] = None
    least: float | None = None
    most: float | None = None


class Info(BaseModel):
    version: Annotated[str, Field(description="Of cqr.")]
    run: str
    model: str
    dataset: str
    pictures: Annotated[int, Field(description="In the gallery: rows 0 to this, less one.")]
    index: str
    attends: Annotated[bool, Field(description="Whether /api/attention has an answer.")]
    divides: Annotated[bool, Field(description="Whether /api/shares has an answer.")]
    words: Annotated[str, Field(description="What to know of the texts' words, or empty.")] = ""
    answers_text: Annotated[bool, Field(description="Whether a text alone can be asked.")]
    reads: Annotated[bool, Field(description="Whether texts say anything to the model.")]
    columns: Annotated[list[Column], Field(description="What conditions can be on.")]
    beside: Annotated[Beside | None, Field(description="The run of `--beside`.")]
    detector: DetectorState
    collects: Annotated[Collects | None, Field(description="The table of `--collect`.")]
    limits: Limits


class Picture(BaseModel):
    row: int
    path: str
    width: int
    height: int


class About(BaseModel):
    """What is known of one picture."""

    path: Annotated[str, Field(description="In the gallery; empty for an upload.")]
    width: int
    height: int
    boxes: Annotated[
        list[list[float]], Field(description="K x 4: left, top, right, bottom in [0, 1].")
    ]
    known: Annotated[
        dict[str, str | float | bool | None], Field(description="By column; null: not known.")
    ]


class Place(BaseModel):
    place: Annotated[int, Field(description="Among those that are listed, from 0.")]


class GalleryPart(BaseModel):
    total: int
    pictures: list[Picture]


class Upload(BaseModel):
    id: UploadId
    objects: Annotated[
        int | None, Field(description="So many were found; null where regions are no objects.")
    ] = None
    notes: Annotated[list[str], Field(description="What to know of the picture.")] = []
    width: int
    height: int
    seconds: Annotated[dict[str, float], Field(description="By part: decode, detect, ...")]


class Found(BaseModel):
    row: int
    path: str
    score: Annotated[float, Field(description="Dot product of two unit vectors.")]
    like: Annotated[
        int | None, Field(description="The row of a better result that is nearly the same.")
    ] = None


class TextPart(BaseModel):
    text: str
    how: Annotated[
        Literal["read", "unknown", "cut"],
        Field(description="unknown: the model never saw the word; cut: beyond its length."),
    ]


class SearchAnswer(BaseModel):
    hits: Annotated[list[Found], Field(description="Best first, or as they were sorted.")]
    more: Annotated[bool, Field(description="Whether results follow these.")]
    seconds: Annotated[dict[str, float], Field(description="By part: encode, search, ...")]
    notes: Annotated[
        list[str], Field(description="What to know before the results; none if all is understood.")
    ] = []
    texts: Annotated[
        list[list[TextPart]],
        Field(description="Of each text, then of each that is not wanted, how it is read."),
    ] = []


class AttentionAnswer(BaseModel):
    """N words over K regions; or the text as one word, and how far it changes each region."""

    way: Annotated[
        Literal["attention", "change"], Field(description="Of pointing: docs/report.md.")
    ]
    said: Annotated[str, Field(description="How often it points right; empty if unmeasured.")]

    words: list[str]
    boxes: Annotated[
        list[list[float]], Field(description="K x 4: left, top, right, bottom in [0, 1].")
    ]
    weights: Annotated[list[list[float]], Field(description="N x K, each row summing to 1.")]


class SharesAnswer(BaseModel):
    """What each of K regions of a result adds to its score."""

    score: float
    boxes: Annotated[
        list[list[float]], Field(description="K x 4: left, top, right, bottom in [0, 1].")
    ]
    shares: Annotated[list[float], Field(description="K, which sum to the score.")]


class SuggestionsAnswer(BaseModel):
    texts: list[str]
