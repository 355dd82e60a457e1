import inspect
import sys
import warnings

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aefeatures import AutoencoderGenerator, AutoencoderTransformer
from aefeatures._warnings import takes_old_arguments, warn

X = np.random.default_rng(0).normal(size=(40, 4))


def wide(**params):
    return AutoencoderTransformer(4, max_epochs=1, random_state=0, **params)


def here():
    """The line that calls this."""
    return sys._getframe(1).f_lineno


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize(
    "fit",
    [
        lambda: (here(), wide().fit(X))[0],
        lambda: (here(), wide().partial_fit(X))[0],
        lambda: (here(), wide().fit_transform(X))[0],
        lambda: (here(), make_pipeline(StandardScaler(), wide()).fit(X))[0],
        lambda: (here(), make_pipeline(StandardScaler(), wide()).fit_transform(X))[0],
        lambda: (here(), cross_val_score(wide(), X, cv=2))[0],
        lambda: (here(), AutoencoderGenerator(wide()).fit(X))[0],
    ],
)
def test_warnings_show_the_line_of_the_caller(fit):
    with pytest.warns(UserWarning, match="the code is not a compression") as caught:
        line = fit()
    shown = [(each.filename, each.lineno) for each in caught if "compression" in str(each.message)]
    assert set(shown) == {(__file__, line)}


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"n_components": 3, "hidden_layer_sizes": (8, 2)}, "it caps the rank of the code at 2"),
        ({"n_components": 2, "learning_rate": 1e-12, "init": "random"}, "learned nothing"),
    ],
)
def test_each_warning_shows_the_line_of_the_caller(params, text):
    transformer = AutoencoderTransformer(**params, max_epochs=1, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = (here(), transformer.fit(X))[0]
    (one,) = (each for each in caught if text in str(each.message))
    assert (one.filename, one.lineno) == (__file__, line)


def test_frames_of_libraries_in_between_are_passed_over():
    for name in ("aefeatures.somewhere", "sklearn.pipeline", "joblib.parallel", "contextlib"):
        with pytest.warns(UserWarning, match="so") as caught:
            exec("warn('so')", {"__name__": name, "warn": warn})
        assert caught[0].filename == __file__
    for names in ({"__name__": "aefeatures_of_mine"}, {}):
        with pytest.warns(UserWarning, match="so") as caught:
            exec("warn('so')", {**names, "warn": warn})
        assert caught[0].filename == "<string>"


@takes_old_arguments(["colour", "size"], {"label": "name", "hue": "colour"})
def draw(name, place=0, *, colour=None, size=1, style=None):
    """Draw."""
    return name, place, colour, size, style


class Shape:
    @takes_old_arguments(["size"])
    def __init__(self, name, *, size=1):
        self.size = size

    @classmethod
    @takes_old_arguments(["size"], {"label": "name"})
    def made(cls, name, *, size=1):
        return cls(name, size=size)


@pytest.mark.parametrize(
    ("args", "kwargs", "result", "text"),
    [
        (("a", 2, "red"), {}, ("a", 2, "red", 1, None), r"Pass colour=\.\.\. to draw by keyword:"),
        (("a", 2, None), {"style": 3}, ("a", 2, None, 1, 3), r"Pass colour=\.\.\. to draw"),
        (("a", 2, "red", 5), {}, ("a", 2, "red", 5, None), r"colour=\.\.\., size=\.\.\. to draw"),
        ((), {"label": "a"}, ("a", 0, None, 1, None), r"'label' was renamed to 'name' in draw\. P"),
        (("a",), {"hue": None}, ("a", 0, None, 1, None), r"Pass colour=\.\.\. instead: 'hue' is"),
    ],
)
def test_old_arguments_warn_and_count(args, kwargs, result, text):
    with pytest.warns(FutureWarning, match=text) as caught:
        line = here(), draw(*args, **kwargs)
    assert line[1] == result
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, line[0])]


def test_new_arguments_do_not_warn():
    assert draw("a", 2, colour="red", size=5) == ("a", 2, "red", 5, None)
    assert draw(name="a") == ("a", 0, None, 1, None)
    assert Shape.made("a", size=3).size == 3


def test_old_arguments_of_methods():
    with pytest.warns(FutureWarning, match=r"Pass size=\.\.\. to Shape by keyword: passing by po"):
        assert Shape("a", 3).size == 3
    with pytest.warns(FutureWarning, match=r"Pass size=\.\.\. to Shape\.made by keyword: passing"):
        assert Shape.made("a", 3).size == 3
    with pytest.warns(FutureWarning, match=r"to 'name' in Shape\.made\. Pass name=\.\.\. instead"):
        assert Shape.made(label="a", size=3).size == 3


@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
def test_what_was_never_taken_is_refused():
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 5 were given"):
        draw("a", 2, "red", 5, "thin")
    with pytest.raises(TypeError, match="multiple values for keyword argument 'colour'"):
        draw("a", 2, "red", colour="blue")
    with pytest.raises(TypeError, match="multiple values for argument 'name'"):
        draw("a", label="b")
    with pytest.raises(TypeError, match="multiple values for keyword argument 'name'"):
        draw(name="a", label="b")
    with pytest.raises(TypeError, match="unexpected keyword argument 'text'"):
        draw("a", text="b")


def test_the_new_form_is_shown():
    assert str(inspect.signature(draw)) == "(name, place=0, *, colour=None, size=1, style=None)"
    assert str(inspect.signature(Shape)) == "(name, *, size=1)"
    assert (draw.__name__, draw.__doc__) == ("draw", "Draw.")
