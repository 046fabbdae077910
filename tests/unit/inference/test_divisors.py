"""Tests of divisors: each one once, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from composecli.inference.divisors import divisors, prime_divisors


def test_one_has_no_divisors() -> None:
    assert list(divisors(1)) == []
    assert list(prime_divisors(1)) == []


def test_a_prime_divides_itself() -> None:
    assert list(divisors(7)) == [7]
    assert list(prime_divisors(7)) == [7]


def test_divisors_come_in_order() -> None:
    assert list(divisors(24)) == [2, 3, 4, 6, 8, 12, 24]
    assert list(prime_divisors(24)) == [2, 3]


@given(st.integers(1, 5000))
def test_prime_divisors_are_the_divisors_that_no_smaller_one_divides(number: int) -> None:
    primes = [one for one in divisors(number) if all(one % other for other in range(2, one))]
    assert list(prime_divisors(number)) == primes


@given(st.integers(1, 2**20))
def test_nothing_is_left_of_a_number_without_its_prime_divisors(number: int) -> None:
    for prime in prime_divisors(number):
        while number % prime == 0:
            number //= prime
    assert number == 1
