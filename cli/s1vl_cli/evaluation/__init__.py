"""`s1vl eval`: multiple-choice benchmarks in VLMEvalKit's TSV format, asked of a server and scored as there."""
