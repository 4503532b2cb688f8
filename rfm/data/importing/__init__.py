"""A user's own database, read once and written as a RelBench folder.

source   which tables, columns and declared keys there are; rows in Arrow batches
stage    rows to temporary parquet files
profile  what each column holds
plan     keys, time columns and kept columns: declared, given by the user, else inferred
write    row numbers for keys, and the folder
"""
