"""Divisors of a size, and the primes among them."""

from __future__ import annotations

from collections.abc import Iterator


def divisors(size: int) -> Iterator[int]:
    """Yield the numbers from 2 that divide a size, the size itself last."""
    for divisor in range(2, size + 1):
        if size % divisor == 0:
            yield divisor


def prime_divisors(number: int) -> Iterator[int]:
    """Yield the primes that divide a number, the smallest first."""
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            yield divisor
        while number % divisor == 0:
            number //= divisor
        divisor += 1
    if number > 1:
        yield number


def prime_factors(number: int) -> Iterator[int]:
    """Yield the primes of which a number is the product, the smallest first."""
    for prime in prime_divisors(number):
        while number % prime == 0:
            number //= prime
            yield prime
