"""CLVC-Net: one composition by places, one by words, which learn from each other.

Wen et al., "Comprehensive Linguistic-Visual Composition Network for Image Retrieval"
(SIGIR 2021), by its code, iLearn-Lab/SIGIR21-CLVC-Net `model.py` and `blocks.py`.  With x a
map of g x g places and w the words' states, each composition with encoders of its own:

    by places:  a_p = sum_n softmax_n(w_n . W x_p / T) w_n        each place reads the words
                phi = gamma([W x, a]) x + beta([W x, a])          over the map
    by words:   a_n = sum_p softmax_p(w_n . W x_p / T) W x_p      each word looks at the places
                phi = gamma([w, a]) a + beta([w, a])              over the words
    vector = fc(GeM phi), that of a target fc'(GeM x);  GeM(x) = (mean max(x, 1e-6)^p)^(1/p)

gamma and beta are inception blocks of convolutions 3 wide, in 2 dimensions over the map,
in 1 over the words, with BN and ReLU.  What is compared are both unit vectors side by side.

    loss = 1/2 ( sum over both (base + KL) + |x_target - phi by places|^2
                 + |query - query'|^2 + |target - target'|^2 )       ' of the other composition

KL: of the softmax over the batch's targets of 10 cos, the other composition's held fixed.
The code trains the two in turns, holding the other fixed; ours does so at once, whose
gradients are the same; the half, since the training's loss is the mean of both.  Squares
are means over coordinates.  Ours: words that are not there do not count; the map, whose
cells are regions mapped to d by the encoder; d for the code's 2,048 channels and for the
1,024 of words.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import Extra, Output, RetrievalModel
from cqr.trainer.models.maps import on_map
from cqr.trainer.models.sharing import gathered
from cqr.trainer.models.whole import WholeConfig, image_encoder, text_encoder
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

LEAST = 1e-6
SHARP = 10.0
"""Of the softmax in KL."""


@dataclass(frozen=True)
class CLVCNetConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`; `pool` has no part, GeM is learned between.

    Attributes:
        side: g; every region is put on the cell of g x g that its middle lies in.  Ours.
        places_temperature, words_temperature: T of each composition.  The code's.
        distance: weight of the squared distances between the two.  1 is the code's.
        perceptual: of that of the maps.  1 is the code's.
        mutual: of KL.  1 is the code's.
    """

    side: int = 3
    places_temperature: float = 7.0
    words_temperature: float = 4.0
    distance: float = 1.0
    perceptual: float = 1.0
    mutual: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 1:
            raise ValueError(f"side {self.side} is less than 1")
        if self.embed_dim % 16:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of 16")


class CLVCNet(RetrievalModel):
    """phi_xt by places and by words; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: CLVCNetConfig) -> None:
        super().__init__(config.scale)
        self.config = config
        self.by_places = _ByPlaces(region_dim, text, config)
        self.by_words = _ByWords(region_dim, text, config)

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x d unit vectors of images to be found."""
        return _joined([side.target(regions)[1] for side in (self.by_places, self.by_words)])

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        return _joined([side.query(regions, words)[1] for side in (self.by_places, self.by_words)])

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """B x 2 x d/2 vectors of both, times the scale, and the further losses."""
        composed, query = self.by_places.query(reference, words)
        _, query_ = self.by_words.query(reference, words)
        aimed, found = self.by_places.target(target)
        _, found_ = self.by_words.target(target)
        c = self.config
        between = F.mse_loss(query, query_) + F.mse_loss(found, found_)
        all_ = [gathered(vectors) for vectors in (query, found, query_, found_)]
        learned = _mutual(*all_) + _mutual(*all_[2:], *all_[:2])
        return Output(
            torch.stack([_unit(query), _unit(query_)], 1) * self.scale,
            torch.stack([_unit(found), _unit(found_)], 1) * self.scale,
            {
                "distance": Extra(c.distance / 2, between),
                "perceptual": Extra(c.perceptual / 2, F.mse_loss(composed, aimed)),
                "mutual": Extra(c.mutual / 2, learned),
            },
        )


class _Side(nn.Module):
    """What both compositions have."""

    def __init__(self, region_dim: int, text: TextSpec, config: CLVCNetConfig) -> None:
        super().__init__()
        d = config.embed_dim
        self.side = config.side
        self.image = image_encoder(region_dim, config)
        self.text = text_encoder(text, config, whole=False)
        self.look = nn.Linear(d, d, bias=False)  # W, a 1 x 1 convolution
        self.pool_target, self.fc_target = GeM(), nn.Linear(d, d // 2)
        self.pool_query, self.fc_query = GeM(), nn.Linear(d, d // 2)

    def map(self, regions: RegionBatch) -> Tensor:
        """B x d x g x g."""
        return on_map(self.image.local(regions), regions, self.side, "clvc-net")

    def target(self, regions: RegionBatch) -> tuple[Tensor, Tensor]:
        """The map, and B x d/2."""
        x = self.map(regions)
        return x, self.fc_target(self.pool_target(x.flatten(2)))


class _ByPlaces(_Side):
    def __init__(self, region_dim: int, text: TextSpec, config: CLVCNetConfig) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        self.temperature = config.places_temperature
        sizes = (5 * d // 16, d // 4, 7 * d // 64, d // 4, 3 * d // 16)
        self.gamma, self.beta = (Inception(2, 2 * d, d // 4, sizes) for _ in range(2))

    def query(self, regions: RegionBatch, words: WordBatch) -> tuple[Tensor, Tensor]:
        """The composed map, and B x d/2."""
        x, w = self.map(regions), self.text.local(words)
        seen = self.look(x.flatten(2).transpose(1, 2))  # B, g g, d
        scores = seen @ w.transpose(1, 2) / self.temperature
        read = scores.masked_fill(~words.mask[:, None], -torch.inf).softmax(-1) @ w
        both = torch.cat([seen, read], -1).transpose(1, 2).unflatten(2, x.shape[2:])
        out = self.gamma(both) * x + self.beta(both)
        return out, self.fc_query(self.pool_query(out.flatten(2)))


class _ByWords(_Side):
    def __init__(self, region_dim: int, text: TextSpec, config: CLVCNetConfig) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        self.temperature = config.words_temperature
        sizes = (3 * d // 8, d // 4, 7 * d // 32, d // 4, d // 8)
        self.gamma, self.beta = (Inception(1, 2 * d, d // 2, sizes) for _ in range(2))

    def query(self, regions: RegionBatch, words: WordBatch) -> tuple[Tensor, Tensor]:
        """The composed words B x d x N, and B x d/2."""
        w, mask = self.text.local(words), words.mask
        seen = self.look(self.map(regions).flatten(2).transpose(1, 2))
        looked = (w @ seen.transpose(1, 2) / self.temperature).softmax(-1) @ seen  # B, N, d
        both = torch.cat([w, looked], -1).transpose(1, 2)
        out = self.gamma(both, mask) * looked.transpose(1, 2) + self.beta(both, mask)
        return out, self.fc_query(self.pool_query(out, mask))


class Inception(nn.Module):
    """Four branches side by side, the last of a mean of neighbours, in 1 or 2 dimensions.

    Args:
        dimensions: of what is convolved.
        width: of what comes in.
        inner: of the first layer of the second and third branch.
        sizes: of the first branch, of the second, within the third and at its end, of the last.
    """

    def __init__(
        self, dimensions: int, width: int, inner: int, sizes: tuple[int, int, int, int, int]
    ) -> None:
        super().__init__()
        one, two, within, three, four = sizes

        def layer(of: int, to: int, kernel: int = 1) -> _Layer:
            return _Layer(dimensions, of, to, kernel)

        self.one = nn.ModuleList([layer(width, one)])
        self.two = nn.ModuleList([layer(width, inner), layer(inner, two, 3)])
        self.three = nn.ModuleList(
            [layer(width, inner), layer(inner, within, 3), layer(within, three, 3)]
        )
        self.four = nn.ModuleList([layer(width, four)])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """B x C x N with a mask B x N, or B x C x g x g."""
        real = x.new_ones(len(x), 1, *x.shape[2:]) if mask is None else mask[:, None].to(x.dtype)
        mean: Callable[..., Tensor] = F.avg_pool1d if x.dim() == 3 else F.avg_pool2d
        # of neighbours that are there: the factor that a border of 0 counts in falls out
        near = mean(x * real, 3, 1, 1) / mean(real, 3, 1, 1).clamp(min=LEAST)
        out = []
        for branch, given in ((self.one, x), (self.two, x), (self.three, x), (self.four, near)):
            for layer in branch:
                given = layer(given, mask)
            out.append(given)
        return torch.cat(out, 1)


class _Layer(nn.Module):
    """Convolution, BN over what is there, ReLU; 0 where nothing is."""

    def __init__(self, dimensions: int, width: int, out: int, kernel: int) -> None:
        super().__init__()
        kind: type[nn.Conv1d | nn.Conv2d] = nn.Conv1d if dimensions == 1 else nn.Conv2d
        self.conv = kind(width, out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm1d(out)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            y = self.conv(x)
            normed: Tensor = self.norm(y.flatten(2)).unflatten(2, y.shape[2:])
            return F.relu(normed)
        y = self.conv(x * mask[:, None]).transpose(1, 2)  # B, N, C
        real = self.norm(y[mask])
        padded = real.new_zeros(y.shape).index_put((mask,), real)
        return F.relu(padded).transpose(1, 2)


class GeM(nn.Module):
    """B x C of B x C x N, over what of N is there; p learns, from 3."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        powers = x.clamp(min=LEAST) ** self.p
        if mask is None:
            mean = powers.mean(-1)
        else:
            mean = (powers * mask[:, None]).sum(-1) / mask.sum(-1, keepdim=True)
        out: Tensor = mean ** (1 / self.p)
        return out


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def _joined(sides: list[Tensor]) -> Tensor:
    joined: Tensor = torch.cat([_unit(side) for side in sides], -1) / float(len(sides)) ** 0.5
    return joined


def _mutual(query: Tensor, found: Tensor, query_: Tensor, found_: Tensor) -> Tensor:
    """KL of the second composition's softmax over the batch's targets, held, from the first's."""
    own = SHARP * _unit(query) @ _unit(found).T
    other = (SHARP * _unit(query_) @ _unit(found_).T).detach()
    return F.kl_div(own.log_softmax(1), other.softmax(1), reduction="batchmean")
