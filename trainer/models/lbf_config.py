"""Every choice of LBF, by name."""

from dataclasses import dataclass
from typing import Literal

Pool = Literal["mean", "max"]


@dataclass(frozen=True)
class LBFConfig:
    """Every choice of the model, and whose choice it is.

    "paper" means that the paper's own slides say so; "inferred" that it follows
    from what is published; "ours" that no published source was found and the
    default is our own.

    Attributes:
        width: D of both streams.  Ours.
        heads: of every attention.  Ours.
        vep_depth: layers of self-attention over regions.  That there are several
            is the paper's; how many, ours.
        tep_depth: the same over words.
        fusion_depth: how often the cross-modal block is stacked.  Stacking is
            the paper's; how many, ours.
        hidden: width of the feed-forward maps, as a multiple of D.  Ours.
        dropout: LXMERT's value.  Ours.
        word_reach: how far TEP's attention tells apart where one word stands from another, to
            either side (`Relative`); 0, the paper's: a word has its place in the text
            instead.  What is worded in another order than any text of the training is
            understood so much better; without `tep_depth` a text has no order.  Ours.
        position: what is known of a box: its corners, or corners and area.  That
            it is normalised is the paper's; the corners are LXMERT's.
        waves: know of a box also sines and cosines of its corners, by which a product can compare
            two places.  Ours.
        relations: let the fusion's attention of regions to one another know where each stands from
            the other (`between`, `Relative`).  Ours.
        combine: how a region's visual and positional embeddings meet.
            "average" is the paper's.
        input_norm: LayerNorm on both embeddings before they are averaged.
            LXMERT's.
        separate_reference: the references of queries have input maps (visual and
            positional) of their own, the images to be found others; all else is
            shared.  For references of another domain, such as drawings (TIRG has an
            encoder for each of its two domains).  Ours.
        directions: which streams the fusion attends with; "both" is the paper's.
        joint: which fused streams are pooled into the query's vector.  Inferred
            (the figure shows a pooling on top of both).  "both": each is pooled, then the
            mean; "union", ours: one pool over the regions and the words, so that with the
            maximum a word can stand for a region that the text adds.
        pool: over the regions, and over the words.  Inferred.
        nothing: pool a learned vector with the regions, of an image and of a query's: what is
            left where the text takes the last object away, of which there are few examples
            (23 of the 3,200 training queries of 200 generated references).  Ours.
        embed_dim: E.  Each region and each word goes through a two-layer map to
            E before pooling, since a set of objects does not fit into a mean of
            narrow vectors.  0 pools the D-wide states themselves.  Ours.
        scale: initial value of the learnable scale of both vectors.  TIRG's.
        locate: weight of a loss that makes a text move the regions that the target has not, and
            no others (`locating`).  For targets that are their references but for what the
            text says.  Ours.
        where: weight of a loss by which one map of a fused region is to tell whether the text is
            about it (`pointing`), for the same targets.  Nothing else reads the map: what it is
            for are the states, of which more is then known.  Ours.
        where_layers: of which layers of the fusion `where` is: the last, or all, whose mean
            counts, as DETR's auxiliary losses (Carion et al., ECCV 2020).  Ours.
    """

    width: int = 512
    heads: int = 8
    vep_depth: int = 2
    tep_depth: int = 2
    fusion_depth: int = 2
    hidden: int = 2
    dropout: float = 0.1
    word_reach: int = 0
    position: Literal["corners", "corners+area", "none"] = "corners"
    waves: bool = False
    relations: bool = False
    combine: Literal["average", "sum"] = "average"
    input_norm: bool = True
    separate_reference: bool = False
    directions: Literal["both", "visual", "language"] = "both"
    joint: Literal["both", "visual", "language", "union"] = "both"
    pool: Pool = "mean"
    nothing: bool = False
    embed_dim: int = 512
    scale: float = 4.0
    locate: float = 0.0
    where: float = 0.0
    where_layers: Literal["last", "all"] = "last"
