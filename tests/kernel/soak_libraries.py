"""Work for soak.py, run inside a kernel: libraries that abort when they are switched in the wrong place."""

import io
import random
import time
import warnings

import matplotlib
import numpy as np
import pandas as pd
import polars as pl
import pydantic
import scipy.integrate as si
import scipy.optimize as so
from lxml import etree

matplotlib.use("Agg")
from matplotlib.figure import Figure  # noqa: E402

warnings.simplefilter("ignore")


def spin(x, *_):
    s = 0
    for i in range(60):
        s += i
    return x


class Model(pydantic.BaseModel):
    x: int
    y: list[float]

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, v):
        return spin(v)


class Target:
    def start(self, tag, attrib):
        spin(1)

    def end(self, tag):
        spin(1)

    def close(self):
        return 7


def quad():
    assert abs(si.quad(lambda x: spin(x) * x, 0, 1)[0] - 1 / 3) < 1e-9


def fit():
    p, _ = so.curve_fit(lambda x, a, b: spin(a) * x + b, np.arange(20.0), np.arange(20.0) * 2 + 1)
    assert abs(p[0] - 2) < 1e-6


def ode():
    r = si.ode(lambda t, y: [spin(-y[0])]).set_integrator("dopri5")
    r.set_initial_value([1.0], 0)
    assert abs(r.integrate(1)[0] - np.exp(-1)) < 1e-4


def frames():
    assert pd.Series(range(300)).apply(spin).sum() == 44850
    table = pd.DataFrame({"a": [1, 2] * 50, "b": range(100)})
    assert table.groupby("a").b.apply(lambda s: spin(s.sum())).sum() == 4950


def polar():
    assert pl.Series(range(200)).map_elements(spin, return_dtype=pl.Int64).sum() == 19900


def validate():
    assert [Model(x=i, y=[1.0]).x for i in range(50)] == list(range(50))


def parse():
    assert etree.fromstring("<a>" + "<b/>" * 200 + "</a>", etree.XMLParser(target=Target())) == 7


def draw():
    figure = Figure()
    figure.subplots().plot(range(100))
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert buffer.getvalue()[:4] == b"\x89PNG"


def work(seconds, seed):
    """Rounds done in that time; AssertionError for a wrong result."""
    choose, rounds, end = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        choose.choice((quad, fit, ode, frames, polar, validate, parse, draw))()
        rounds += 1
    return rounds
