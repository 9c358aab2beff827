"""A crowd of public tables that nobody chose by hand: what share of them is served, and is it served rightly?"""
