import numpy as np
import pytest

from recorder import layouts

LOUD = np.array([32767, 32767, -32768, -32768, 1, 0], np.int16)


def planes(*tracks):
    return np.array(tracks, np.int16).reshape(len(tracks), -1)


def noise(tracks, samples, seed=1):
    return np.random.default_rng(seed).integers(-32768, 32768, (tracks, samples), dtype=np.int16)


def exact_sum(given):
    return np.clip(given.astype(np.int64).sum(axis=0), -32768, 32767).astype(np.int16)


def test_a_sum_saturates_and_never_wraps():
    mixed = layouts.mix(planes(LOUD, LOUD))
    assert mixed.dtype == np.int16
    assert mixed.tolist() == [32767, 32767, -32768, -32768, 2, 0]


@pytest.mark.parametrize("tracks", range(6))
@pytest.mark.parametrize("samples", [0, 1, 65_535, 65_536, 65_537, 150_000])
def test_mix_is_the_saturated_sum_of_any_number_of_tracks(tracks, samples):
    given = noise(tracks, samples)
    before = given.copy()
    mixed = layouts.mix(given)
    assert mixed.dtype == np.int16
    np.testing.assert_array_equal(mixed, exact_sum(given))
    np.testing.assert_array_equal(given, before)


def test_a_sum_saturates_once_not_at_every_track():
    assert layouts.mix(planes([30000], [30000], [-30000])).tolist() == [30000]


def test_a_single_track_is_its_own_mix_without_a_copy():
    given = noise(1, 10)
    assert np.shares_memory(layouts.mix(given), given)


@pytest.mark.parametrize("samples", [0, 1, 1000, 70_000])
@pytest.mark.parametrize(
    "names",
    [
        ("bot",),
        ("user", "bot"),
        ("bot", "user"),
        ("a", "bot", "b"),
        ("a", "b", "bot"),
        ("bot", "a", "b"),
        ("a", "b", "bot", "c"),
    ],
)
def test_stereo_has_the_bot_on_the_right_and_all_others_on_the_left(names, samples):
    given = noise(len(names), samples)
    frames = layouts.stereo(given, names)
    assert frames.shape == (samples, 2)
    assert frames.dtype == np.int16
    assert frames.flags.c_contiguous
    others = [index for index, name in enumerate(names) if name != "bot"]
    np.testing.assert_array_equal(frames[:, 0], exact_sum(given[others]))
    np.testing.assert_array_equal(frames[:, 1], given[names.index("bot")])


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b"), ("a", "b", "c", "d")])
def test_stereo_without_a_bot_has_the_first_track_on_the_left(names):
    given = noise(len(names), 500)
    frames = layouts.stereo(given, names)
    left = given[0] if names else np.zeros(500, np.int16)
    np.testing.assert_array_equal(frames[:, 0], left)
    np.testing.assert_array_equal(frames[:, 1], exact_sum(given[1:]))


def test_stereo_saturates_the_left_side():
    frames = layouts.stereo(planes(LOUD, LOUD, -(LOUD // 2)), ("a", "b", "bot"))
    assert frames[:, 0].tolist() == [32767, 32767, -32768, -32768, 2, 0]


def test_a_track_is_found_by_name_without_a_copy():
    given = noise(3, 10)
    found = layouts.track(given, ("a", "b", "bot"), "b")
    np.testing.assert_array_equal(found, given[1])
    assert np.shares_memory(found, given)
    with pytest.raises(ValueError, match="'c'"):
        layouts.track(given, ("a", "b", "bot"), "c")


def test_interleaved_frames_serve_as_planes():
    frames = noise(2, 1000).T.copy()
    np.testing.assert_array_equal(layouts.stereo(frames.T, ("user", "bot")), frames)
    np.testing.assert_array_equal(layouts.mix(frames.T), exact_sum(frames.T))


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c")])
def test_names_and_planes_must_agree(names):
    with pytest.raises(ValueError, match="2 tracks"):
        layouts.stereo(noise(2, 4), names)
    with pytest.raises(ValueError, match="2 tracks"):
        layouts.track(noise(2, 4), names, "a")


def test_planes_have_two_dimensions():
    with pytest.raises(ValueError, match="shape"):
        layouts.mix(np.zeros(4, np.int16))


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("samples", [0, 1, 10_000])
def test_downmix_is_the_mean_rounded_to_even(channels, samples):
    frames = noise(channels, samples).T
    mono = layouts.downmix(frames)
    assert mono.shape == (samples,)
    assert mono.dtype == np.int16
    expected = np.rint(frames.astype(np.int64).sum(axis=1) / channels)
    np.testing.assert_array_equal(mono, expected)


@pytest.mark.parametrize("value", [-32768, 32767, 0])
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_downmix_keeps_full_scale(value, channels):
    assert layouts.downmix(np.full((5, channels), value, np.int16)).tolist() == [value] * 5


def test_downmix_adds_no_offset():
    frames = noise(2, 400_000).T // 64
    bias = layouts.downmix(frames).mean() - frames.mean()
    assert abs(bias) < 0.005


def test_downmix_of_no_channels_is_an_error():
    with pytest.raises(ValueError, match="channels"):
        layouts.downmix(np.zeros((4, 0), np.int16))
    with pytest.raises(ValueError, match="channels"):
        layouts.downmix(np.zeros(4, np.int16))


def test_a_bot_that_joins_late_moves_nobody_to_the_other_side() -> None:
    a, b, bot = planes(LOUD, -LOUD, LOUD // 2)
    before = layouts.stereo(np.stack([a, b]), ("a", "b"), ("a", "b"))
    after = layouts.stereo(np.stack([a, b, bot * 0]), ("a", "b", "bot"), ("a", "b"))
    np.testing.assert_array_equal(before, after)
    declared = layouts.stereo(np.stack([a, b, bot]), ("a", "b", "bot"), ("a", "b", "bot"))
    np.testing.assert_array_equal(declared[:, 1], bot)
    second = layouts.stereo(np.stack([a, bot]), ("a", "bot"), ("a",))
    np.testing.assert_array_equal(second[:, 1], bot)


@pytest.mark.parametrize(
    ("names", "declared"),
    [
        (["user"], ["bot"]),
        (["bot"], ["bot"]),
        (["user", "bot"], ["user", "bot"]),
        (["bot", "user"], []),
        (["user", "user-2", "bot"], ["bot"]),
        (["user", "user-2", "bot"], []),
        (["user", "user-2", "user-3"], ["bot"]),
        ([], ["bot"]),
    ],
)
def test_the_sides_that_are_told_are_those_that_are_heard(names, declared):
    sides = layouts.stereo_sides(names, declared)
    assert sorted(sides[0] + sides[1]) == list(range(len(names)))
    for index in range(len(names)):
        given = np.zeros((len(names), 1), np.int16)
        given[index] = 1000
        [heard] = layouts.stereo(given, names, declared)
        assert heard.tolist() == [1000 * (index in side) for side in sides]
