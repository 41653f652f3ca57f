"""What the service and its callers say to each other, with bounds on everything."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

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


class SearchQuestion(Said):
    """`cqr search`, with its options; docs/search.md says what they mean."""

    images: Annotated[list[Row | UploadId], Field(min_length=1, max_length=8)]
    texts: Annotated[list[Weighted], Field(max_length=8)] = []
    nots: Annotated[list[Text], Field(max_length=8)] = []
    k: Annotated[int, Field(ge=1, le=200)] = 50
    keep_references: bool = False
    where: Annotated[str, Field(pattern=r"\S", max_length=500)] | None = None


class AttentionQuestion(Said):
    image: Row | UploadId
    text: Text


class SharesQuestion(SearchQuestion):
    """A question, and one of its results."""

    row: Row


class Answer(Said):
    """What of a question's results is right, and what is not; each a picture of the gallery."""

    reference: Row | UploadId
    text: Text
    right: Annotated[list[Row], Field(max_length=200)] = []
    wrong: Annotated[list[Row], Field(max_length=200)] = []
    none: Annotated[bool, Field(description="No picture of the gallery is right.")] = False


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


class Info(BaseModel):
    version: Annotated[str, Field(description="Of cqr.")]
    run: str
    model: str
    dataset: str
    pictures: Annotated[int, Field(description="In the gallery: rows 0 to this, less one.")]
    index: str
    attends: Annotated[bool, Field(description="Whether /api/attention has an answer.")]
    divides: Annotated[bool, Field(description="Whether /api/shares has an answer.")]
    limits: Limits


class Picture(BaseModel):
    row: int
    path: str
    width: int
    height: int


class GalleryPart(BaseModel):
    total: int
    pictures: list[Picture]


class Upload(BaseModel):
    id: UploadId
    width: int
    height: int
    seconds: Annotated[dict[str, float], Field(description="By part: decode, detect, ...")]


class Found(BaseModel):
    row: int
    path: str
    score: Annotated[float, Field(description="Dot product of two unit vectors.")]


class SearchAnswer(BaseModel):
    hits: Annotated[list[Found], Field(description="Best first.")]
    seconds: Annotated[dict[str, float], Field(description="By part: encode, search, ...")]


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
