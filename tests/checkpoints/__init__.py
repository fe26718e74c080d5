"""Tests of the checkpoint readers, with the tools that build and damage files."""
