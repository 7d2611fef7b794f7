# The stream of transactions, and the queue of notes about what could not be decided.

resource "aws_kinesis_stream" "transactions" {
  name             = "fraud-transactions"
  shard_count      = var.stream_shards
  retention_period = 24
  encryption_type  = "KMS"
  kms_key_id       = aws_kms_key.main.arn

  stream_mode_details {
    stream_mode = "PROVISIONED"
  }
}

# The records themselves lie in the bucket, whole; here is one note for each, and what was sent to the function past
# the stream and failed.
resource "aws_sqs_queue" "stream_dead" {
  name                      = "fraud-transactions-dead-letters"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  policy                    = data.aws_iam_policy_document.stream_dead.json
}

data "aws_iam_policy_document" "stream_dead" {
  statement {
    sid       = "NotesFromTheBucket"
    actions   = ["sqs:SendMessage"]
    resources = ["${local.queues}:fraud-transactions-dead-letters"]

    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_s3_bucket.data.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}
