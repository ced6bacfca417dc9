from llmpatch.judges import phrases
