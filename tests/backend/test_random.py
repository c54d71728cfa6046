import numpy as np
import pytest
from keras import ops

from robust_zoo.backend import random


def words(key):
    return [int(word) for word in np.ravel(ops.convert_to_numpy(key))]


def test_threefry_gives_the_published_answers():
    # Known answers of Random123's kat_vectors for threefry2x32 with 20 rounds.
    def encrypt(key, counter):
        tensor = [random._word(word) for word in (*key, *counter)]
        return words(ops.stack(random._threefry(ops.stack(tensor[:2]), tensor[2], tensor[3])))

    assert encrypt((0, 0), (0, 0)) == [0x6B200159, 0x99BA4EFE]
    assert encrypt((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)) == [0x1CB996FC, 0xBB002BE7]
    assert encrypt((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3)) == [0xC4923A9C, 0x483DF7A0]


def threefry(key, counter):
    """Threefry-2x32-20 in plain Python integers."""
    mask = 2**32 - 1
    schedule = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x = [(counter[0] + key[0]) & mask, (counter[1] + key[1]) & mask]
    for number in range(20):
        bits = (13, 15, 26, 6, 17, 29, 16, 24)[number % 8]
        x[0] = (x[0] + x[1]) & mask
        x[1] = (x[1] << bits | x[1] >> (32 - bits)) & mask ^ x[0]
        if number % 4 == 3:
            block = number // 4 + 1
            x[0] = (x[0] + schedule[block % 3]) & mask
            x[1] = (x[1] + schedule[(block + 1) % 3] + block) & mask
    return x


def test_uniform_numbers_are_those_of_plain_integers_on_every_backend():
    drawn = ops.convert_to_numpy(random.uniform(random.fold_in(random.key(7), np.arange(2)), (3,)))
    expected = []
    for example in range(2):
        key = threefry((0, 7), (example, 0))
        pairs = [threefry(key, (counter, 1)) for counter in range(2)]
        bits = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
        expected.append([(word >> 8) / 2**24 for word in bits[:3]])
    np.testing.assert_array_equal(drawn, np.asarray(expected, "float32"))


def test_numbers_depend_on_the_example_alone():
    keys = random.fold_in(random.key(0), np.arange(5))
    together = ops.convert_to_numpy(random.uniform(keys, (2, 3)))
    alone = ops.convert_to_numpy(random.uniform(keys[3:4], (2, 3)))
    np.testing.assert_array_equal(together[3:4], alone)
    assert len(np.unique(together)) == together.size


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, True, "0"])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed must be an integer"):
        random.key(seed)


def test_large_seeds_differ_in_the_high_word():
    assert words(random.key(2**40 + 5)) == [2**8, 5]


def test_uniform_is_uniform():
    keys = random.fold_in(random.key(3), np.arange(200))
    drawn = ops.convert_to_numpy(random.uniform(keys, (501,), -2.0, 4.0))
    assert drawn.min() >= -2
    assert drawn.max() < 4
    counts, _ = np.histogram(drawn, bins=50, range=(-2, 4))
    expected = drawn.size / 50
    # chi-squared with 49 degrees of freedom: 86.7 is exceeded once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 86.7


def test_normal_has_the_moments_of_a_normal():
    keys = random.fold_in(random.key(4), np.arange(300))
    drawn = ops.convert_to_numpy(random.normal(keys, (301,)))
    assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
    assert abs(drawn.std() - 1) < 4 / np.sqrt(2 * drawn.size)
    assert abs((np.abs(drawn) < 1).mean() - 0.6827) < 0.007


def test_integers_reach_every_value_and_no_other():
    keys = random.fold_in(random.key(5), np.arange(1000))
    drawn = ops.convert_to_numpy(random.integers(keys, 9))
    assert sorted(set(drawn.tolist())) == list(range(9))


def test_draws_and_derived_keys_do_not_meet():
    keys = random.fold_in(random.key(0), np.arange(50))
    derived = {w for i in range(20) for w in words(random.fold_in(keys, i))}
    drawn = {int(w) for w in np.ravel(ops.convert_to_numpy(random._bits(keys, 40)))}
    assert len(drawn & derived) == 0
